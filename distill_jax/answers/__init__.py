"""Reading the final answer out of a text and comparing it with the gold answer."""

from distill_jax.answers.check import Verdict, check_batch, equivalent, equivalent_batch
from distill_jax.answers.extract import Answer, extract, printed

__all__ = [
    "Answer",
    "Verdict",
    "check_batch",
    "equivalent",
    "equivalent_batch",
    "extract",
    "printed",
]
