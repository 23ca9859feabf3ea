"""Inputs of a sandbox (Limits, Layers) and its outputs (Result, SandboxError)."""

from dataclasses import dataclass
from typing import Literal

from distill_jax.core.errors import ConfigError, DistillError

Status = Literal["ok", "error", "timeout", "memory", "output", "violation", "rejected"]

# Whole numbers where the bounds are. An interpreter with sympy takes some 60 MiB of address space
# before a program starts; the canaries, which try every new zygote, are held by the same limits.
_BOUNDS: dict[str, tuple[float, float]] = {
    "wall_s": (0.01, 86_400.0), "cpu_s": (0.01, 86_400.0), "memory_mb": (128, 1 << 20),
    "output_bytes": (16, 64 << 20), "program_bytes": (2000, 64 << 20),
}  # fmt: skip


class SandboxError(DistillError, RuntimeError):
    """The sandbox itself cannot work: not a program's fault."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Args:
        wall_s: seconds on the clock, from before the fork.
        cpu_s: seconds of CPU time, user and system.
        memory_mb: MiB of address space, the interpreter and its libraries included.
        output_bytes: of stdout, and as many of stderr, where a traceback may add 32,000.
        program_bytes: of the program as UTF-8.

    Raises:
        ConfigError: a limit is not a number or impossible.
    """

    wall_s: float = 5.0
    cpu_s: float = 2.0
    memory_mb: int = 512
    output_bytes: int = 65536
    program_bytes: int = 100_000

    def __post_init__(self) -> None:
        """Checks every field."""
        for name, (least, most) in _BOUNDS.items():
            value, whole = getattr(self, name), isinstance(least, int)
            known = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not (known and least <= value <= most):  # false for nan
                raise ConfigError(
                    f"limit {name}={value!r}",
                    wanted=f"a {'whole ' if whole else ''}number from {least} to {most}",
                    fix=f"set Limits({name}=...)",
                )


@dataclass(frozen=True)
class Layers:
    """Which layers are there. Only tests take one away, to see what the others hold.

    Args:
        syntax: the policy on imports and names, a message more than a boundary.
        identity: the program runs as nobody, where the host is root.
        limits: rlimits.
        landlock: no file, TCP, abstract socket or outside signal, where the kernel has it.
        filter: the seccomp allow-list.
    """

    syntax: bool = True
    identity: bool = True
    limits: bool = True
    landlock: bool = True
    filter: bool = True


@dataclass(frozen=True)
class Result:
    """How one program ended.

    Args:
        status: ok (it ended with exit code 0), error (an exception, another exit code or a
            crash), timeout (wall clock or CPU), memory, output (too much of it), violation (a
            forbidden system call), rejected (refused by the policy, or no Python).
        stdout: what it printed, UTF-8, up to the limit.
        stderr: what it wrote there, the traceback included, and a line of the sandbox where a
            limit or a layer ended it.
        wall_ms: milliseconds from before the fork until the process was gone.
        cpu_s: seconds of CPU time.
        rss: peak of resident memory in bytes; a fork starts with its zygote's.
        rc: exit code, or minus the signal; None where no process was started.
    """

    status: Status
    stdout: str
    stderr: str
    wall_ms: float
    cpu_s: float
    rss: int
    rc: int | None

    def __bool__(self) -> bool:
        """Whether it ended well, so that `if result` never takes a failure for one."""
        return self.status == "ok"
