"""What is said of a forecast of memory: the table, a warning, the refusal."""

import os

import jax
from rich.table import Table

from distill_jax.core.errors import ConfigError
from distill_jax.forecast.parts import GB, Forecast

# Weights and caches are exact and activations within 15% on CPU, but XLA can give up time for
# memory: a stage cannot run where its forecast is so many times what the device has.
CERTAIN = 1.5
# Bytes of a token id in Python: an object, and its places in a store's list and a candidate.
_TOKEN = 45
ADVICE = (
    "decode, score or train fewer rows at a time (batch, attempts, samples, n, buckets.rows, "
    "accumulate), use more devices along mesh.fsdp, or teacher.quantise=int8"
)


def device_limit() -> int | None:
    """Bytes that this process may take of a device's memory; None where jax does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")


def host_bytes() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def host_warning(stage: str, completions: int, longest: int, limit: int | None) -> str:
    """What to say when completions, all as long as they may be, take more than the host's memory.

    Empty when they do not, or when the memory is unknown.
    """
    held = completions * longest * _TOKEN
    if limit is None or held <= limit:
        return ""
    return (
        f"WARNING: stage {stage} may keep {completions} completions of {longest} tokens, "
        f"{_gb(held)} GB of this machine's {_gb(limit)}; take fewer problems, agents or attempts"
    )


def table(found: Forecast, limit: int | None) -> Table:
    """The forecast for people."""
    where = "one device" if found.devices == 1 else f"each of {found.devices} devices"
    out = Table(title=f"{found.stage}: memory forecast, GB on {where}")
    out.add_column("what")
    out.add_column("GB", justify="right")
    for part in sorted(found.parts, key=lambda part: not part.stays):
        out.add_row(part.name if part.stays else f"+ {part.name}", _gb(part.bytes))
    out.add_section()
    out.add_row("stays", _gb(found.resident))
    out.add_row(f"peak, at {found.phase.name.split(':')[0]}", _gb(found.peak))
    out.add_row("device", "unknown" if limit is None else _gb(limit))
    return out


def warning(found: Forecast, limit: int | None) -> str:
    """What to say when the peak is over the device's memory; empty when it is not, or unknown."""
    if limit is None or found.peak <= limit:
        return ""
    return (
        f"WARNING: stage {found.stage} is forecast to need {_gb(found.peak)} GB of each device, "
        f"which has {_gb(limit)}, at {found.phase.name}; {ADVICE}"
    )


def refuse(found: Forecast, limit: int | None) -> None:
    """Raises ConfigError where a stage cannot run on devices of so many bytes; None: unknown."""
    if limit is not None and found.peak > CERTAIN * limit:
        raise ConfigError(
            f"stage {found.stage} is forecast to need {_gb(found.peak)} GB of each device, at "
            f"{found.phase.name}",
            wanted=f"at most the {_gb(limit)} GB of each",
            fix=ADVICE,
        )


def _gb(count: int) -> str:
    return f"{count / GB:.2f}" if count >= GB / 100 else f"{count / GB:.2g}"
