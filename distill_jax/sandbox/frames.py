"""What host and zygote say to each other: fixed binary headers, then bytes. Never pickle.

Request: number u64, flags u8, length of the program u32; then the program.
Reply: number u64, cause u8, exit code i32, wall ms f64, CPU s f64, peak memory u64, lengths of
stdout and stderr u32 each; then both.
"""

import struct
from typing import NamedTuple

REQUEST = struct.Struct("<QBI")
REPLY = struct.Struct("<QBiddQII")

SKIP_SYNTAX = 1  # flag of a request: the host's own canaries

READY, FAILED = 254, 255  # causes of the zygote's first frame

# (cause, status, reason) in the order of the byte on the wire.
CAUSES = (
    ("done", "ok", ""),
    ("exit", "error", ""),
    ("signal", "error", "the program was ended by a signal"),
    ("wall", "timeout", "the limit of wall-clock time is reached"),
    ("cpu", "timeout", "the limit of CPU time is reached"),
    ("memory", "memory", "the limit of memory is reached"),
    ("output", "output", "the limit of output is reached"),
    ("syscall", "violation", "a system call that the sandbox forbids"),
    ("policy", "rejected", ""),
    ("setup", "error", "the sandbox could not confine the program and did not run it"),
)
CODE = {cause: code for code, (cause, _, _) in enumerate(CAUSES)}


class Outcome(NamedTuple):
    """How one program ended: a reply without its number, the cause as the byte on the wire."""

    cause: int
    rc: int
    wall_ms: float
    cpu_s: float
    rss: int
    out: bytes | memoryview
    err: bytes | memoryview


def reply(number: int, found: Outcome) -> list[bytes | memoryview]:
    """A reply as the pieces to send."""
    head = REPLY.pack(number, *found[:5], len(found.out), len(found.err))
    return [head, found.out, found.err]


# Exit codes of the child's own runner. A program that takes one by itself gets a wrong label
# for its failure; only 0 gives `ok`.
EXIT_MEMORY, EXIT_POLICY, EXIT_SETUP = 101, 102, 103
