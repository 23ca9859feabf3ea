"""Distillation of mathematical reasoning from large to small language models, in JAX."""

import os

# Said before transformers is imported anywhere: that torch is missing is no news here.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

__version__ = "0.2.0"
