"""Teacher scores that are known already: in memory, and optionally on disk.

A cache can only be slow or empty, never wrong or in the way: what does not carry its checksum is
dropped, and no fault of the disk reaches training. Only settings that make no sense raise.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import cachetools

from distill_jax.core.errors import ConfigError
from distill_jax.core.files import check_local
from distill_jax.core.settings import setting
from distill_jax.core.unread import Unread, off
from distill_jax.models.head.listed import TopK
from distill_jax.rewards.score_bytes import (
    DamagedBytesError,
    Row,
    ScoreSource,
    Value,
    decode,
    encode,
)
from distill_jax.rewards.score_store import ScoreStore

MEGABYTE = 10**6
_POLICIES: dict[str, type[cachetools.Cache]] = {
    "lru": cachetools.LRUCache,
    "lfu": cachetools.LFUCache,
    "fifo": cachetools.FIFOCache,
}
# Uses that are noted on disk at once, where no new scores come to be written.
_NOTED_AT_ONCE = 4096


@dataclass(frozen=True)
class CacheSettings:
    """Teacher scores kept from one step, epoch or run to the next."""

    UNREAD: ClassVar = (
        Unread(("policy", "disk_megabytes", "rows"), ("megabytes",), off),
        Unread(("disk_megabytes",), ("directory",), off),
    )

    megabytes: float = setting(
        0.0,
        "Memory for teacher scores, in units of 10⁶ bytes; 0 is no cache.",
        low=0.0,
        affects="rounding",
    )
    policy: str = setting(
        "lru",
        "What goes when the cache is full: least recently used, least frequently used, first in.",
        choices=("lru", "lfu", "fifo"),
        affects="nothing",
    )
    directory: str = setting(
        "",
        "Local directory where scores outlive the process, shared by any number of processes of "
        'one host (no network file system); "" is memory only.',
        affects="nothing",
    )
    disk_megabytes: float = setting(
        1000.0, "Size limit of `directory`, in units of 10⁶ bytes.", above=0.0, affects="nothing"
    )
    rows: int = setting(
        16,
        "Rows that the teacher scores at a time when some are cached. The last bits of a score "
        "depend on it, so it is fixed, and a cached score equals one scored again. From the "
        "batch's rows on, scores are those without a cache. 0 scores missing rows together, "
        "padded to a power of two: fewer calls, last bits that depend on what was cached.",
        low=0,
        affects="rounding",
    )

    def __post_init__(self) -> None:
        check_local(self.directory, "cache.directory")
        if self.directory and not self.megabytes:
            raise ConfigError(
                f"directory={self.directory!r} with megabytes=0",
                wanted="megabytes above 0: with 0 there is no cache, on disk neither",
                fix="set megabytes=100, or directory to nothing",
            )


class ScoreCache:
    """Scores by row: `lookup` before scoring, `store` after it. Not thread-safe.

    Args:
        settings: with megabytes above 0.
        source: what scores depend on in addition to the row; part of every key.
        warn: called with one line for damage or an unusable disk; None logs it.
    """

    def __init__(
        self,
        settings: CacheSettings,
        source: ScoreSource,
        *,
        warn: Callable[[str], None] | None = None,
    ):
        self.settings, self.source = settings, source
        self._warn = warn or logging.getLogger(__name__).warning
        limit = int(settings.megabytes * MEGABYTE)
        self._memory = _POLICIES[settings.policy](limit, getsizeof=_size)
        self._disk: ScoreStore | None = None
        if settings.directory:
            most = int(settings.disk_megabytes * MEGABYTE)
            self._disk = ScoreStore(settings.directory, most, settings.policy, warn=self._warn)
        self._uses: dict[bytes, int] = {}
        self._hits = self._misses = self._evicted = self._rejected = self._damaged = 0
        self._rate = 0.0

    def lookup(self, rows: Sequence[Row], program: str | Sequence[str] = "") -> list[Value | None]:
        """The value of each row, None where it is not known.

        Args:
            rows: the same one may stand there twice, and counts twice.
            program: see `ScoreSource.key`; one for all rows, or one a row.
        """
        keys = self._keys(rows, program)
        found: dict[bytes, Value] = {}
        absent: dict[bytes, Row] = {}
        for key, row in zip(keys, rows, strict=True):
            if key not in self._memory or not self._take(found, key, row, self._memory[key][1]):
                absent[key] = row
        if self._disk is not None and absent:
            self._read(found, absent)
        if self._disk is not None:
            for key in keys:
                if key in found:
                    self._uses[key] = self._uses.pop(key, 0) + 1  # the latest stands last
            if len(self._uses) >= _NOTED_AT_ONCE:
                self._write({})
        values = [found.get(key) for key in keys]
        hits = sum(value is not None for value in values)
        self._hits, self._misses = self._hits + hits, self._misses + len(rows) - hits
        self._rate = hits / len(rows) if rows else 0.0
        return values

    def store(
        self, rows: Sequence[Row], values: Sequence[Value], program: str | Sequence[str] = ""
    ) -> None:
        """Keeps the values of these rows; on disk, one that is there already stays.

        Values are of the source's kind and the response's length; the rest is as for `lookup`.

        Raises:
            ValueError: a value of another kind, shape or dtype.
        """
        entries: dict[bytes, bytes] = {}
        keys = self._keys(rows, program)
        for key, row, value in zip(keys, rows, values, strict=True):
            k = value.ids_XK.shape[1] if isinstance(value, TopK) else 0
            if (k, len(value[0])) != (self.source.top_k, len(row.response_R)):
                want = f"{len(row.response_R)} tokens of kind {self.source.kind}"
                raise ValueError(f"{len(value[0])} tokens with k={k}, wanted {want}")
            entries[key] = encode(key, value)
        disk_limit = self._disk.max_bytes if self._disk is not None else self._memory.maxsize
        for key, blob in entries.items():
            kept = self._remember(key, blob)
            if not kept or len(key) + len(blob) > disk_limit:
                self._rejected += 1
        self._write(entries)

    def metrics(self) -> dict[str, float]:
        """hit_rate is the last lookup's; bytes are held now; the others count since the start.

        `evictions` are those of memory and disk together, `rejected` entries larger than either,
        `damaged` entries that were dropped and files that were set aside. All differ between a
        run and a resumed one: they tell of the machine, not of the training.
        """
        disk = self._disk
        values = {
            "hit_rate": self._rate,
            "hits": self._hits,
            "misses": self._misses,
            "evictions": self._evicted + (disk.evicted if disk is not None else 0),
            "bytes": self._memory.currsize,
            "disk_bytes": disk.bytes if disk is not None and disk.active else 0,
            "rejected": self._rejected,
            "damaged": self._damaged + (disk.damaged if disk is not None else 0),
        }
        return {f"teacher_cache/{name}": float(value) for name, value in values.items()}

    def close(self) -> None:
        """Notes the last uses on disk and closes the file."""
        if self._disk is not None:
            if self._uses:
                self._write({})
            self._disk.close()

    def _keys(self, rows: Sequence[Row], program: str | Sequence[str]) -> list[bytes]:
        programs = [program] * len(rows) if isinstance(program, str) else program
        return [self.source.key(row, own) for row, own in zip(rows, programs, strict=True)]

    def _take(self, found: dict[bytes, Value], key: bytes, row: Row, blob: object) -> bool:
        """Whether the bytes are sound; then their value is in `found`."""
        try:
            found[key] = decode(key, blob, len(row.response_R), self.source.top_k)
        except DamagedBytesError:
            self._damaged += 1
            self._memory.pop(key, None)
            return False
        return True

    def _read(self, found: dict[bytes, Value], absent: dict[bytes, Row]) -> None:
        """Adds to `found` what the disk has of `absent`; damaged entries leave the disk."""
        assert self._disk is not None
        damaged = []
        for key, blob in self._disk.get(absent).items():
            if self._take(found, key, absent[key], blob):
                self._remember(key, cast(bytes, blob))
            else:
                damaged.append(key)
        if damaged:
            self._disk.delete(damaged)
            path = self._disk.path
            self._warn(f"teacher cache: {len(damaged)} damaged entries of {path} deleted")

    def _remember(self, key: bytes, blob: bytes) -> bool:
        """Whether the entry fits into memory, where it now is."""
        entry = (key, blob)
        if _size(entry) > self._memory.maxsize:
            return False
        after = len(self._memory) + (key not in self._memory)
        self._memory[key] = entry
        self._evicted += after - len(self._memory)
        return True

    def _write(self, entries: dict[bytes, bytes]) -> None:
        if self._disk is not None:
            self._disk.put(entries, self._uses)
        self._uses = {}


def _size(entry: tuple[bytes, bytes]) -> int:
    # cachetools sizes values alone; Python's own some hundred bytes an entry are not counted.
    return len(entry[0]) + len(entry[1])
