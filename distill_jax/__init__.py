"""Distillation of mathematical reasoning from large to small language models, in JAX."""

__version__ = "0.1.0"
