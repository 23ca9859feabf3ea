"""Reading the final answer out of a text and comparing it with the gold answer."""

from distill_jax.answers.check import Verdict, check_batch, equivalent, equivalent_batch
from distill_jax.answers.extract import Answer, extract, printed
from distill_jax.answers.flexible import flexible_right

__all__ = [
    "Answer",
    "Verdict",
    "check_batch",
    "equivalent",
    "equivalent_batch",
    "extract",
    "flexible_right",
    "printed",
]
