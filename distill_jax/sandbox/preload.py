"""What a zygote loads before its first fork, because a confined child can open no file.

Importing is not enough: libraries import more inside their functions, and fill caches at the
first call. So typical calls are made once, here.
"""

import builtins
import decimal
import fractions
import importlib
import itertools
import math
import sys
import traceback

# Modules that Python itself asks for late: codecs, named characters, warnings, errors.
LATE_MODULES = (
    "__future__ ast encodings.ascii encodings.latin_1 encodings.unicode_escape "
    "encodings.raw_unicode_escape encodings.utf_8 linecache unicodedata warnings"
).split()
# Never loaded: sympy works without them, and their presence would change results and speed.
ABSENT = (
    "IPython aesara antlr4 clang cupy cython flint gmpy2 jax lark llvmlite matplotlib numexpr "
    "numpy pyglet pymc scipy tensorflow theano torch"
).split()
# shutil and warnings load these if they can; nothing here needs them, and each library is five
# mappings that every fork copies.
ABSENT += ["bz2", "lzma", "zlib", "tracemalloc"]


def everything(*, sympy: bool) -> None:
    """Loads and warms up.

    Args:
        sympy: also sympy with its public submodules.

    Raises:
        ImportError: a module is missing.
    """
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in LATE_MODULES:
        importlib.import_module(name)
    sys.set_int_max_str_digits(0)  # limits of time and memory hold great numbers in bounds
    vars(builtins).update(exit=leave, quit=leave)
    _warm_up_python()
    if sympy:
        warm = importlib.import_module("distill_jax.sandbox.preload_sympy")
        warm.everything()


def leave(code: object = None) -> None:
    """exit() and quit(), which the interpreter's site module would have brought."""
    raise SystemExit(code)


def _warm_up_python() -> None:
    """Formatting of numbers and of a traceback, once."""
    f"{fractions.Fraction(1, 3)} {decimal.Decimal(1) / 3:.4f} {math.pi:10.3e} {10**6:,}"
    decimal.getcontext().clear_flags()  # a program may look at them
    next(itertools.permutations("ab"))
    try:
        raise ValueError("warm-up")
    except ValueError as error:
        traceback.format_exception(error)
