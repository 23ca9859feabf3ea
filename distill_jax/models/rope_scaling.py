"""Scalings of rotary frequencies for longer contexts: YaRN and that of Llama 3."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from distill_jax.core.errors import ConfigError


@dataclass(frozen=True)
class YarnConfig:
    """YaRN rotary scaling (arXiv 2309.00071), fields named as in config.json.

    Attributes:
        factor: how many times the context grows.
        original_max_position_embeddings: context of pretraining, in tokens.
        beta_fast: rotations over the original context above which a frequency is kept.
        beta_slow: rotations below which a frequency is divided by `factor`.
        attention_factor: multiplies cos and sin; None derives it from `factor`.
        truncate: round the ends of the ramp outwards to whole dimensions.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True
    rope_type: ClassVar[str] = "yarn"

    def __post_init__(self) -> None:
        _check_growth(self.factor, self.original_max_position_embeddings)

    @property
    def scale(self) -> float:
        """What cos and sin are multiplied by: 0.1·ln(factor) + 1 unless given."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1.0

    def frequencies(self, plain: np.ndarray, theta: float) -> np.ndarray:
        """Slow ones divided by `factor`, fast ones kept, a linear blend between.

        Args:
            plain: float32 [head_dim / 2], theta^(−2i/head_dim).
            theta: base of the rotary frequencies.

        Returns:
            float32 [head_dim / 2], radians a position.
        """
        size = 2 * len(plain)

        def dimension(rotations: float) -> float:
            # The pair that turns `rotations` times over the context of pretraining.
            turns = self.original_max_position_embeddings / (rotations * 2 * math.pi)
            return size * math.log(turns) / (2 * math.log(theta))

        low, high = dimension(self.beta_fast), dimension(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        high = high + 0.001 if high == low else high
        ramp = np.clip((np.arange(size // 2, dtype=np.float32) - low) / (high - low), 0, 1)
        return (plain / np.float32(self.factor) * ramp + plain * (1 - ramp)).astype(np.float32)

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], positions: int) -> "YarnConfig":
        """From the rope entries of a config.json; positions: its max_position_embeddings."""
        original = values.get("original_max_position_embeddings") or positions
        factor = values.get("factor") or positions / original
        attention = values.get("attention_factor")
        mscale, mscale_all = values.get("mscale"), values.get("mscale_all_dim")
        if attention is None and mscale and mscale_all and factor > 1:
            log = 0.1 * math.log(factor)
            attention = (log * mscale + 1.0) / (log * mscale_all + 1.0)
        return cls(
            factor=float(factor),
            original_max_position_embeddings=int(original),
            beta_fast=float(values.get("beta_fast") or 32),
            beta_slow=float(values.get("beta_slow") or 1),
            attention_factor=attention,
            truncate=bool(values.get("truncate", True)),
        )

    def to_hf(self) -> dict[str, Any]:
        """The entry rope_scaling of config.json."""
        return {"rope_type": self.rope_type, **asdict(self), "attention_factor": self.scale}


@dataclass(frozen=True)
class Llama3Scaling:
    """Rotary scaling of Llama 3.1 and later (arXiv 2407.21783), fields named as in config.json.

    Attributes:
        factor: what slow frequencies are divided by.
        original_max_position_embeddings: context of pretraining, in tokens.
        low_freq_factor: rotations over the original context below which a frequency is slow.
        high_freq_factor: rotations above which a frequency is kept.
    """

    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    rope_type: ClassVar[str] = "llama3"
    scale: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _check_growth(self.factor, self.original_max_position_embeddings)
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            got = f"rope_scaling low_freq_factor={self.low_freq_factor}, high_freq_factor="
            raise ConfigError(f"{got}{self.high_freq_factor}", wanted="0 < low < high")

    def frequencies(self, plain: np.ndarray, theta: float) -> np.ndarray:
        """Slow ones divided by `factor`, fast ones kept, a blend linear in rotations between.

        Args, Returns: see `YarnConfig.frequencies`; theta is not used.
        """
        rotations = np.float32(self.original_max_position_embeddings / (2 * math.pi)) * plain
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = np.clip((rotations - low) / (high - low), 0, 1)
        return ((1 - kept) * plain / np.float32(self.factor) + kept * plain).astype(np.float32)

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], positions: int) -> "Llama3Scaling":
        """From the rope entries of a config.json; positions: its max_position_embeddings.

        Raises:
            ConfigError: a missing or impossible value.
        """
        named = ("factor", "low_freq_factor", "high_freq_factor")
        for name in named:
            if isinstance(values.get(name), bool) or not isinstance(values.get(name), int | float):
                raise ConfigError(f"rope_scaling {name}={values.get(name)!r}", wanted="a number")
        original = values.get("original_max_position_embeddings") or positions
        return cls(
            original_max_position_embeddings=int(original),
            **{name: float(values[name]) for name in named},
        )

    def to_hf(self) -> dict[str, Any]:
        """The entry rope_scaling of config.json."""
        return {"rope_type": self.rope_type, **asdict(self)}


RopeScaling = YarnConfig | Llama3Scaling
SCALINGS: Mapping[str, type[RopeScaling]] = {
    kind.rope_type: kind for kind in (YarnConfig, Llama3Scaling)
}


def _check_growth(factor: float, original: int) -> None:
    if factor < 1 or original < 1:
        got = f"rope_scaling factor={factor}, original_max_position_embeddings={original}"
        raise ConfigError(got, wanted="both at least 1")
