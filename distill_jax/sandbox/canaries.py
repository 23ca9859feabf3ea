"""Small programs that try to break out at start: if one succeeds, no other program is run."""

from collections.abc import Callable
from dataclasses import dataclass

from distill_jax.sandbox.limits import Layers, Limits, Result, SandboxError

_NO_FILE = """
import os
try:
    os.open("/dev/null", os.O_RDONLY)
except PermissionError:
    print("held")
"""


@dataclass(frozen=True)
class Canary:
    """What is tried, the layer whose work it proves ("" for none), and how it must end.

    The program is not subject to the policy.
    """

    name: str
    layer: str
    program: str
    status: str
    stdout: str = ""


def canaries(limits: Limits) -> list[Canary]:
    """What each zygote runs before its first program."""
    too_much = f"bytearray({limits.memory_mb} << 20)"
    return [
        Canary("arithmetic and print", "", "print(1 + 1)", "ok", "2\n"),
        Canary("allocate all memory", "limits", too_much, "memory"),
        Canary("open a file", "filter", _NO_FILE, "ok", "held\n"),
        Canary("fork", "filter", "import os; os.fork()", "violation"),
        Canary("signal a process", "filter", "import os; os.kill(0, 0)", "violation"),
        Canary(
            "make a socket",
            "filter",
            "import ctypes; ctypes.CDLL(None).socket(1, 1, 0)",
            "violation",
        ),
    ]


def check(run: Callable[[str], Result], limits: Limits, layers: Layers) -> None:
    """Runs the canaries of the layers that should be there; `run` leaves the policy out.

    Raises:
        SandboxError: one ended otherwise than it must: the confinement does not hold.
    """
    for canary in canaries(limits):
        if canary.layer and not getattr(layers, canary.layer):
            continue
        found = run(canary.program)
        if (found.status, found.stdout) != (canary.status, canary.stdout):
            raise SandboxError(
                f"canary '{canary.name}' ended with {found.status}, {found.stdout[:200]!r}, "
                f"{found.stderr[-500:]!r}",
                wanted=f"{canary.status}, {canary.stdout!r}",
                fix="run no programs on this machine; see `python -m launch.sandbox --probe`",
            )
