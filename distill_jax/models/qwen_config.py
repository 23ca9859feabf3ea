"""Geometry of a dense Qwen2, Qwen3, Llama or Mistral model, and its way from and to config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from distill_jax.core.errors import ConfigError
from distill_jax.models.rope_scaling import SCALINGS, RopeScaling

FULL, SLIDING = "full_attention", "sliding_attention"


class Family(NamedTuple):
    """What a model_type means in transformers.

    Attributes:
        prefix: of its classes' names.
        qkv_bias, qk_norm: see QwenConfig.
        absent: entries of config.json that the type does not have, of those written here.
        usual: values that hold where config.json is silent, if they are no other type's.
    """

    prefix: str
    qkv_bias: bool = False
    qk_norm: bool = False
    absent: tuple[str, ...] = ()
    usual: Mapping[str, Any] = {}


_ENDS = {"bos_token_id": 1, "eos_token_id": 2}
_SWITCHED = ("use_sliding_window", "max_window_layers", "layer_types")
FAMILIES = {
    "qwen2": Family("Qwen2", qkv_bias=True, absent=("attention_bias",)),
    "qwen3": Family("Qwen3", qk_norm=True, usual={"head_dim": 128}),
    "llama": Family(
        "Llama",
        absent=("sliding_window", *_SWITCHED),
        usual={"max_position_embeddings": 2048, **_ENDS},
    ),
    "mistral": Family(
        "Mistral",
        absent=("attention_bias", *_SWITCHED),
        usual={
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "max_position_embeddings": 131072,
            **_ENDS,
        },
    ),
}
# Fields of QwenConfig that are whole numbers, and their names in config.json.
_SIZES = {
    "num_heads": "num_attention_heads",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "vocab_size": "vocab_size",
    "intermediate_size": "intermediate_size",
}


@dataclass(frozen=True)
class QwenConfig:
    """Everything that fixes a model's tensors and forward pass; hashable, static under jit.

    Attributes:
        model_type: "qwen2" (also Qwen2.5), "qwen3", "llama" or "mistral".
        vocab_size: rows of the embedding, padding rows included.
        hidden_size: D.
        intermediate_size: F of the gated MLP.
        num_layers: L.
        num_heads: query heads.
        num_kv_heads: key and value heads; divides num_heads.
        head_dim: size of one head; need not be hidden_size / num_heads.
        rope_theta: base of the rotary frequencies.
        rms_norm_eps: epsilon of every RMSNorm.
        tie_embeddings: the head is the embedding; no lm_head tensor exists.
        qkv_bias: q, k and v projections have a bias (Qwen2).
        qk_norm: RMSNorm over each head of q and k before rope (Qwen3).
        max_position_embeddings: context that config.json promises; nothing is cut at it.
        sliding_window: W: a windowed layer sees keys with 0 <= position_q - position_k < W.
        layer_types: one of "full_attention", "sliding_attention" a layer; () means all full.
        rope_scaling: YaRN or that of Llama 3; None for plain rope.
        initializer_range: standard deviation of freshly drawn weights.
        bos_token_id: first token, if any.
        eos_token_id: token or tokens that end a text.
        pad_token_id: padding token.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_embeddings: bool = True
    qkv_bias: bool = True
    qk_norm: bool = False
    max_position_embeddings: int = 32768
    sliding_window: int | None = None
    layer_types: tuple[str, ...] = ()
    rope_scaling: RopeScaling | None = None
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.model_type not in FAMILIES:
            raise ConfigError(f"model_type={self.model_type!r}", wanted=" or ".join(FAMILIES))
        if not self.layer_types:
            object.__setattr__(self, "layer_types", (FULL,) * self.num_layers)
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads")
        for name in (*sizes, "num_kv_heads", "head_dim", "rope_theta", "rms_norm_eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}", wanted="more than 0")
        if self.num_heads % self.num_kv_heads:
            got = f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"
            raise ConfigError(got, wanted="kv heads that divide the heads")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim={self.head_dim}", wanted="an even size: rope turns pairs")
        if len(self.layer_types) != self.num_layers or not set(self.layer_types) <= {FULL, SLIDING}:
            wanted = f"{self.num_layers} entries, each {FULL} or {SLIDING}"
            raise ConfigError(f"layer_types={self.layer_types!r}", wanted=wanted)
        if SLIDING in self.layer_types and (self.sliding_window or 0) < 1:
            got = f"layer_types has {SLIDING} with sliding_window={self.sliding_window!r}"
            raise ConfigError(got, fix="set sliding_window (and use_sliding_window in config.json)")

    @property
    def windows(self) -> tuple[int | None, ...]:
        """W of every layer, None where it sees everything before it."""
        return tuple(self.sliding_window if k == SLIDING else None for k in self.layer_types)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "QwenConfig":
        """From the contents of a Hugging Face config.json, of transformers 4 or 5.

        Raises:
            ConfigError: another architecture, biases where the geometry has none, another rope
                scaling, quantised weights, or a missing or impossible value.
        """
        model_type = _check_architecture(config)
        family = FAMILIES[model_type]
        config = {**family.usual, **config}
        if config.get("quantization_config"):
            raise ConfigError("quantization_config is set", fix="use the unquantised checkpoint")
        if config.get("hidden_act", "silu") != "silu":
            raise ConfigError(f"hidden_act={config['hidden_act']!r}", wanted="silu")
        for flag in ("attention_bias", "mlp_bias"):
            # Neither has a meaning in Qwen2. Elsewhere the first one adds a bias to o_proj, too.
            if model_type != "qwen2" and config.get(flag):
                got = f"{flag}={config[flag]}"
                raise ConfigError(got, wanted=f"a {family.prefix} model without it")
        sizes: dict[str, Any] = {name: _size(config, key) for name, key in _SIZES.items()}
        kv_heads = sizes["num_heads"]
        head_dim = sizes["hidden_size"] // kv_heads
        if config.get("num_key_value_heads") is not None:
            kv_heads = _size(config, "num_key_value_heads")
        if config.get("head_dim") is not None:
            head_dim = _size(config, "head_dim")
        window, layer_types = _windows(config, family, sizes["num_layers"])
        theta, scaling = _rope(config)
        eos = config.get("eos_token_id")
        return cls(
            **sizes,
            model_type=model_type,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            rope_theta=theta,
            rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            tie_embeddings=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=family.qkv_bias,
            qk_norm=family.qk_norm,
            max_position_embeddings=int(config.get("max_position_embeddings", 32768)),
            sliding_window=window,
            layer_types=layer_types,
            rope_scaling=scaling,
            initializer_range=float(config.get("initializer_range", 0.02)),
            bos_token_id=config.get("bos_token_id"),
            eos_token_id=tuple(eos) if isinstance(eos, list | tuple) else eos,
            pad_token_id=config.get("pad_token_id"),
        )

    def to_hf(self) -> dict[str, Any]:
        """A config.json that transformers 4 and 5, and `from_hf`, read back as this model.

        Raises:
            ConfigError: biases, norms or windows that the model type does not have in transformers.
        """
        family = FAMILIES[self.model_type]
        if (self.qkv_bias, self.qk_norm) != (family.qkv_bias, family.qk_norm):
            got = f"{self.model_type} with qkv_bias={self.qkv_bias}, qk_norm={self.qk_norm}"
            wanted = f"qkv_bias={family.qkv_bias}, qk_norm={family.qk_norm}, as in transformers"
            raise ConfigError(got, wanted=wanted)
        eos = self.eos_token_id
        out: dict[str, Any] = {
            "architectures": [f"{family.prefix}ForCausalLM"],
            "model_type": self.model_type,
            **{key: getattr(self, name) for name, key in _SIZES.items()},
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_embeddings,
            "use_sliding_window": self.sliding_window is not None,
            "sliding_window": self.sliding_window,
            "layer_types": list(self.layer_types),
            "initializer_range": self.initializer_range,
            "use_cache": True,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(eos) if isinstance(eos, tuple) else eos,
            "pad_token_id": self.pad_token_id,
        }
        windowed = [i for i, kind in enumerate(self.layer_types) if kind == SLIDING]
        out["max_window_layers"] = windowed[0] if windowed else self.num_layers
        if self.rope_scaling is not None:
            out["rope_scaling"] = self.rope_scaling.to_hf()
        out = {name: value for name, value in out.items() if name not in family.absent}
        read = _windows(out, family, self.num_layers)[1]
        if read != self.layer_types:
            got = f"{self.model_type} with layer_types={self.layer_types}"
            raise ConfigError(got, wanted=f"{read}, as in transformers")
        return out


def _check_architecture(config: Mapping[str, Any]) -> str:
    model_type, names = config.get("model_type"), config.get("architectures") or []
    known = {name: f"{family.prefix}ForCausalLM" for name, family in FAMILIES.items()}
    wanted = " or ".join(known.values())
    if model_type not in FAMILIES:
        got = f"model_type={model_type!r}" + (f", architectures={names}" if names else "")
        fix = "point at a dense Qwen2, Qwen2.5, Qwen3, Llama or Mistral model"
        raise ConfigError(got, wanted=wanted, fix=fix)
    if names and known[model_type] not in names:
        raise ConfigError(f"architectures={names} for {model_type}", wanted=wanted)
    return model_type


def _size(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}={value!r}", wanted="a whole number above 0 in config.json")
    return value


def _windows(
    config: Mapping[str, Any], family: Family, layers: int
) -> tuple[int | None, tuple[str, ...]]:
    """(W, kind of each layer): by switches in Qwen, one kind for all layers in other families."""
    kinds = config.get("layer_types")
    if "layer_types" not in family.absent:
        window = config.get("sliding_window") if config.get("use_sliding_window") else None
        first = config.get("max_window_layers", 28)
        usual = (SLIDING if window and i >= first else FULL for i in range(layers))
        return window, tuple(kinds or usual)
    window = None if "sliding_window" in family.absent else config.get("sliding_window")
    kind = FULL if window is None else SLIDING
    if set(kinds or [kind]) != {kind}:  # transformers would ignore them
        got = f"layer_types={kinds} for {family.prefix}ForCausalLM, sliding_window={window}"
        raise ConfigError(got, wanted=f"{kind} in every layer", fix="drop layer_types")
    return window, (kind,) * layers


def _rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """(theta, scaling or None); `rope_parameters` is where transformers 5 writes both."""
    parameters = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or parameters
    if any(isinstance(v, Mapping) for v in scaling.values()):
        raise ConfigError("rope parameters differ by layer type", wanted="one set for all layers")
    # The order in which transformers looks, and what it assumes where config.json names none.
    named = [place.get("rope_theta") for place in (scaling, config, parameters)]
    theta = float(next((value for value in named if value is not None), 10_000.0))
    if (scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ConfigError("partial_rotary_factor other than 1", wanted="rope over whole heads")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind not in SCALINGS:
        wanted = " or ".join(["default", *SCALINGS])
        raise ConfigError(f"rope scaling of type {kind!r}", wanted=wanted)
    return theta, SCALINGS[kind].from_hf(scaling, config.get("max_position_embeddings", 32768))
