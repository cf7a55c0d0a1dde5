"""The study file: its sections, reading it, and messages about mistakes in it."""

from viny.config.load import load, vary
from viny.config.sections import Config

__all__ = ["Config", "load", "vary"]
