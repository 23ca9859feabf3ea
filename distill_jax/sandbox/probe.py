"""What this machine can hold: full, partial or none, with a reason for each layer."""

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import Literal

from distill_jax.sandbox import confine, landlock
from distill_jax.sandbox.filter import ARCHITECTURES

_PR_GET_SECCOMP = 21


@dataclass(frozen=True)
class Probe:
    """What was found.

    Args:
        level: full: the filter works, the boundary holds. partial: limits and policy only; a
            program can do what the user can. none: not even processes that can be limited.
        layers: name of each layer to (works, reason).
    """

    level: Literal["full", "partial", "none"]
    layers: dict[str, tuple[bool, str]]

    def table(self) -> str:
        """One line for each layer, the level first."""
        lines = [f"level: {self.level}"]
        for name, (works, reason) in self.layers.items():
            lines.append(f"{name:<9} {'yes' if works else 'no':<4} {reason}")
        return "\n".join(lines)


def probe() -> Probe:
    """Asks the kernel; changes nothing and starts nothing."""
    if not hasattr(os, "fork"):
        why = f"{sys.platform} has no fork"
        names = ("syntax", "identity", "limits", "landlock", "filter")
        return Probe("none", {name: (False, why) for name in names})
    filters = _filter()
    layers = {
        "syntax": (True, "a message to the program's author, no boundary"),
        "identity": _identity(),
        "limits": _limits(),
        "landlock": _landlock(),
        "filter": filters,
    }
    return Probe("full" if filters[0] else "partial", layers)


def _identity() -> tuple[bool, str]:
    if os.geteuid() != 0:
        return False, "not root: programs keep the host's user; the filter holds them"
    if confine.can_become_nobody():
        return True, f"programs run as user {confine.NOBODY}"
    return False, "root without the capabilities to become nobody; the filter holds programs"


def _limits() -> tuple[bool, str]:
    if sys.platform == "linux":
        return True, "memory, CPU, files, processes, descriptors"
    return True, f"CPU, files, processes, descriptors; {sys.platform} does not hold memory"


def _landlock() -> tuple[bool, str]:
    if sys.platform != "linux":
        return False, "only Linux has it"
    version = landlock.abi(ctypes.CDLL(None, use_errno=True))
    if not version:
        return False, "the kernel has none or has it switched off; the filter holds programs"
    more = " and TCP" if version >= 4 else ""
    more = ", TCP, abstract sockets and signals" if version >= 6 else more
    return True, f"ABI {version}: denies files{more} a second time"


def _filter() -> tuple[bool, str]:
    if sys.platform != "linux":
        return False, f"{sys.platform} has no seccomp"
    machine = os.uname().machine
    if machine not in ARCHITECTURES or sys.maxsize < 2**32:
        return False, f"no table of system calls for {machine}"
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return False, "the kernel was built without seccomp"
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as listed:
            actions = listed.read().split()
    except OSError:
        return True, f"seccomp on {machine}"  # the canaries decide
    missing = {"kill_process", "errno", "allow"} - set(actions)
    if missing:
        return False, f"seccomp without {', '.join(sorted(missing))}"
    return True, f"seccomp on {machine}"
