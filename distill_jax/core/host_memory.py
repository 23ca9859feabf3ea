"""How glibc keeps the memory that XLA:CPU frees after each step.

XLA:CPU takes all temporaries of a program as one block and frees it at the end. glibc maps so large
a block from the kernel and gives it back, so every step touches new pages: 40,000 page faults for
155 MB, a quarter of the step's time (docs/benchmarks.md). Kept, the same pages serve all steps.
"""

import ctypes
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65536


def _mallopt(*settings: tuple[int, int]) -> bool:
    """Whether all of (option, value) were taken; False where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(option, value) for option, value in settings)


def keep_freed_memory() -> bool:
    """Freed memory stays with the process: one heap for all threads, never mapped, never trimmed.

    Call it before any thread has begun: a thread that already has a heap of its own keeps it, and
    such a heap cannot hold large blocks. Returns whether it was done.
    """
    return _mallopt((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))


def return_freed_memory_unless_cpu() -> bool:
    """glibc's own ways again, where the host computes nothing; asks JAX for its backend.

    Elsewhere than on CPU large blocks hold weights on their way to the devices: kept, they would
    fill the host.
    """
    import jax  # not above: many commands of launch need none of it

    if jax.default_backend() == "cpu":
        return False
    return _mallopt((_M_MMAP_MAX, _DEFAULT_MMAP_MAX), (_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD))
