"""viny: what do pre-training data, an intermediate task and labels each buy a small Vision Transformer?

The experiment is that of "Diminishing Returns in Self-Supervised Learning" (arXiv:2512.03862).
"""

__version__ = "0.1.0"
