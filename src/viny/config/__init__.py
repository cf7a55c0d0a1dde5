"""The study file: its sections, reading it, and what people are told about mistakes in it."""

from viny.config.load import load, vary
from viny.config.sections import Config

__all__ = ["Config", "load", "vary"]
