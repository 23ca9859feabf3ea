"""What the compiler says of a program: seconds, memory, FLOPs, collectives; as data and a table."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
from rich.table import Table

from distill_jax.forecast import hlo_text, hlo_traffic
from distill_jax.forecast.compiled_programs import Lowered, Planned
from distill_jax.forecast.hlo_collectives import Collective, collectives
from distill_jax.forecast.hlo_text import Array

MB = 10**6
_LARGEST = 8  # arrays of a program that are listed


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One program on one device.

    Attributes:
        stage, name: of the program.
        seconds: that the compiler took.
        arguments, outputs, temporaries, aliased: bytes; aliased outputs take no memory of their
            own.
        peak: bytes of arguments and live arrays at the fullest moment; temporaries also hold
            what lies unused between them.
        traffic: bytes read and written in main memory in one call, see `hlo_traffic`.
        flops: by the compiler, which counts the body of a loop once; None where it does not say,
            as for GPUs that are not here.
        collectives: of the optimised program.
        loops: how often each of its loops turns; None where the compiler does not say.
        arrays: all kinds of arrays that its operations leave in memory.
    """

    stage: str
    name: str
    seconds: float
    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    peak: int
    traffic: int
    flops: float | None
    collectives: tuple[Collective, ...]
    loops: tuple[int | None, ...]
    arrays: frozenset[Array]

    @property
    def held(self) -> int:
        """Bytes that a call takes: arguments, outputs that are none of them, temporaries."""
        return self.arguments + self.outputs - self.aliased + self.temporaries

    def moved(self, *, in_loops: bool) -> int:
        """Bytes that collectives return, inside or outside of loops, in one call."""
        chosen = (one for one in self.collectives if bool(one.loops) == in_loops)
        return sum(one.bytes * one.times for one in chosen)


def each(stage: str, planned: Planned) -> Iterator[Compiled]:
    """Compiles what a method of `Programs` plans, in its order."""
    with contextlib.suppress(StopIteration):
        lowered = next(planned)
        while True:
            with _uncached():
                compiled, about = _compile(stage, lowered)
            yield about
            lowered = planned.send(compiled)


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Without jax's compilation cache: it cannot read programs for devices that are not here."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # whether there is one is asked once
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _compile(stage: str, lowered: Lowered) -> tuple[jax.stages.Compiled, Compiled]:
    start = time.perf_counter()
    compiled = lowered.program.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis() or {}
    module = hlo_text.parse(compiled.as_text() or "")
    about = Compiled(
        stage,
        lowered.name,
        seconds,
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.peak_memory_in_bytes,
        hlo_traffic.traffic(module),
        _flops(cost),
        tuple(collectives(module)),
        tuple(hlo_text.trip_counts(module)),
        hlo_text.in_memory(module),
    )
    return compiled, about


def _flops(cost: dict[str, float]) -> float | None:
    """The TPU compiler gives a negative number where it does not know."""
    flops = cost.get("flops")
    return None if flops is None or flops < 0 else flops


def as_dict(found: Compiled) -> dict[str, Any]:
    """For JSON: bytes on one device."""
    out = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    largest = sorted(found.arrays, key=lambda array: -array.bytes)[:_LARGEST]
    out["arrays"] = [str(array) for array in largest]
    out["collectives"] = [
        {
            "kind": one.kind,
            "bytes": one.bytes,
            "largest": str(one.largest),
            "loops": one.loops,
            "times": one.times,
            "op_name": one.op_name,
        }
        for one in found.collectives
    ]
    return out


def tables(found: list[Compiled], title: str) -> list[Table]:
    """The programs for people, a row each; then their collectives, a row a kind."""
    out = Table(title=title, caption="of one device; a loop's FLOPs are of one turn")
    out.add_column("program", overflow="fold")
    for name in (
        "seconds",
        "arguments",
        "outputs",
        "temporaries",
        "aliased",
        "peak",
        "traffic",
        "FLOP",
    ):
        out.add_column(name, justify="right")
    moves = Table(title="collectives", caption="MB of results, in one call of the program")
    for name in ("program", "where", "kind", "largest array"):
        moves.add_column(name, overflow="fold")
    for name in ("number", "MB"):
        moves.add_column(name, justify="right")
    for one in found:
        sizes = (one.arguments, one.outputs, one.temporaries, one.aliased, one.peak, one.traffic)
        flops = "not given" if one.flops is None else _short(one.flops)
        name = f"{one.stage}: {one.name}"
        out.add_row(name, f"{one.seconds:.1f}", *map(_short, sizes), flops)
        for where, kind, some in _by_kind(one):
            largest = max((x.largest for x in some), key=lambda array: array.bytes)
            size = sum(x.bytes * x.times for x in some) / MB
            moves.add_row(name, where, kind, str(largest), str(len(some)), f"{size:.3g}")
    return [out, moves]


def _by_kind(found: Compiled) -> Iterator[tuple[str, str, list[Collective]]]:
    for where, in_loops in (("in a loop", True), ("outside", False)):
        inside = [one for one in found.collectives if bool(one.loops) == in_loops]
        for kind in sorted({one.kind for one in inside}):
            yield where, kind, [one for one in inside if one.kind == kind]


def _short(number: float) -> str:
    """Three digits and a letter, e.g. 1.23 G."""
    for letter, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"
