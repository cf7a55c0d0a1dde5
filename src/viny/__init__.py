"""viny: what do pre-training data, an intermediate task and labels each buy a small Vision Transformer?

The experiment is that of "Diminishing Returns in Self-Supervised Learning" (arXiv:2512.03862). In Python,
`viny.results(FOLDER)` gives the tables of a study, `viny.encoder(FOLDER)` and `viny.segmenter(FOLDER)` its models.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viny.api import encoder, results, segmenter

__version__ = "0.2.0"
__all__ = ["encoder", "results", "segmenter"]


def __getattr__(name: str) -> Any:
    """`import viny` loads neither pandas nor torch; what needs them is loaded when it is used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from viny import api

    return getattr(api, name)
