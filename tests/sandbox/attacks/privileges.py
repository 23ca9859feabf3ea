"""Gives up what root has, so that the sandbox is met as an ordinary user would run it."""

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

NOBODY = 65534
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 4, 24, 28, 38
NO_ROOT_LOCKED = 0b101111  # uid 0 means nothing, also after exec; keep-caps off; all locked
CAPABILITY_VERSION_3 = 0x20080522


def reachable(path: Path) -> bool:
    """Whether a user without any rights here may enter the folder, or read the file."""
    path = path.resolve()
    doors = all(folder.stat().st_mode & 0o001 for folder in path.parents)
    return doors and bool(path.stat().st_mode & (0o001 if path.is_dir() else 0o004))


def drop() -> str:
    """Becomes nobody where nobody can reach interpreter and sources, else root without rights.

    Returns:
        what was done, in words.

    Raises:
        OSError: the kernel refused.
    """
    if os.geteuid() != 0:
        return "was unprivileged already"
    spec = find_spec("sympy")
    assert spec is not None and spec.origin is not None
    needed = [sys.executable, sys.base_prefix, sys.prefix, spec.origin, __file__]
    libc = ctypes.CDLL(None, use_errno=True)
    if all(reachable(Path(path)) for path in needed):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        _check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        return "became nobody"
    _check(libc.prctl(PR_SET_SECUREBITS, NO_ROOT_LOCKED, 0, 0, 0))
    capability = 0
    while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()))
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    status = Path("/proc/self/status").read_text()
    assert f"CapEff:\t{0:016x}" in status and f"CapBnd:\t{0:016x}" in status
    return "stayed uid 0 without capabilities: nobody cannot reach the interpreter"


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
