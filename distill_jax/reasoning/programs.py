"""Programs of a model as strings, none of them run here: the names that other packages use.

What is rewritten (`strip_comments`, `perturbed`) must run in the sandbox before it counts.
"""

from distill_jax.data.fences import fenced
from distill_jax.reasoning.program_checks import (
    assertions,
    ignores,
    is_constant,
    perturbed,
)
from distill_jax.reasoning.program_fences import (
    NO_PROGRAM,
    Extracted,
    extract,
    is_closed,
)
from distill_jax.reasoning.program_trees import all_nodes, normalised, parsed, strip_comments

__all__ = [
    "NO_PROGRAM",
    "Extracted",
    "all_nodes",
    "assertions",
    "extract",
    "fenced",
    "ignores",
    "is_closed",
    "is_constant",
    "normalised",
    "parsed",
    "perturbed",
    "strip_comments",
]
