"""Released geometries, without files or network: dense Qwen2.5, Qwen2.5-Math, Qwen3; SmolLM2."""

from typing import Any

from distill_jax.models.qwen_config import QwenConfig


def _qwen2_5(
    hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, **other: Any
) -> QwenConfig:
    """Up to 3B the embedding is tied and has 151,936 rows; from 7B on untied with 152,064."""
    tied = hidden <= 2048
    values = {"tie_embeddings": tied, "bos_token_id": 151643, "eos_token_id": 151643, **other}
    shape = (hidden, mlp, layers, heads, kv_heads, hidden // heads)
    return QwenConfig("qwen2", 151936 if tied else 152064, *shape, **values)


def _qwen3(hidden: int, mlp: int, layers: int, heads: int, **other: Any) -> QwenConfig:
    values = {
        "tie_embeddings": hidden <= 2560,
        "max_position_embeddings": 40960,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        **other,
    }
    return QwenConfig(
        "qwen3", 151936, hidden, mlp, layers, heads, 8, 128, qkv_bias=False, qk_norm=True, **values
    )


_CHAT: dict[str, Any] = {"eos_token_id": 151645}
_LONG: dict[str, Any] = {"max_position_embeddings": 131072}
_MATH: dict[str, Any] = {"max_position_embeddings": 4096, "rope_theta": 10_000.0}
_BASE: dict[str, Any] = {"max_position_embeddings": 32768, "eos_token_id": 151643}
_SIZES_2_5: dict[str, tuple[tuple[int, int, int, int, int], dict[str, Any]]] = {
    # size: hidden, mlp, layers, heads, kv heads; what differs in the base model's config.json
    "0_5b": ((896, 4864, 24, 14, 2), {}),
    "1_5b": ((1536, 8960, 28, 12, 2), _LONG),
    "3b": ((2048, 11008, 36, 16, 2), {}),
    "7b": ((3584, 18944, 28, 28, 4), _LONG),
    "14b": ((5120, 13824, 48, 40, 8), {**_LONG, "rms_norm_eps": 1e-5}),
    "32b": ((5120, 27648, 64, 40, 8), {**_LONG, "rms_norm_eps": 1e-5}),
    "72b": ((8192, 29568, 80, 64, 8), {**_LONG, "rms_norm_eps": 1e-5}),
}
_SIZES_3 = {
    "0_6b": (1024, 3072, 28, 16),
    "1_7b": (2048, 6144, 28, 16),
    "4b": (2560, 9728, 36, 32),
    "8b": (4096, 12288, 36, 32),
    "14b": (5120, 17408, 40, 40),
    "32b": (5120, 25600, 64, 64),
}

# The released geometries, by name: "qwen2_5_7b", "qwen2_5_7b_instruct", "qwen2_5_math_7b",
# "qwen2_5_math_7b_instruct", "qwen3_8b" (chat), "qwen3_8b_base" (up to 14b), ...
PRESETS: dict[str, QwenConfig] = {}
for _name, (_shape, _other) in _SIZES_2_5.items():
    PRESETS[f"qwen2_5_{_name}"] = _qwen2_5(*_shape, **_other)
    PRESETS[f"qwen2_5_{_name}_instruct"] = _qwen2_5(*_shape, **_CHAT)
for _name in ("1_5b", "7b", "72b"):
    _shape = _SIZES_2_5[_name][0]
    PRESETS[f"qwen2_5_math_{_name}"] = _qwen2_5(*_shape, **_MATH)
    PRESETS[f"qwen2_5_math_{_name}_instruct"] = _qwen2_5(*_shape, **{**_MATH, **_CHAT})
for _name, _wide in _SIZES_3.items():
    PRESETS[f"qwen3_{_name}"] = _qwen3(*_wide)
    if _name != "32b":  # Qwen released no base model of this size
        PRESETS[f"qwen3_{_name}_base"] = _qwen3(*_wide, **_BASE)


# Other families, by hub id.
_OTHERS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": QwenConfig(
        "llama", 49152, 576, 1536, 30, 9, 3, 64, qkv_bias=False, rope_theta=100_000.0,
        rms_norm_eps=1e-5, max_position_embeddings=8192, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    ),
}  # fmt: skip


def released(path: str) -> QwenConfig | None:
    """The geometry of a hub id such as Qwen/Qwen2.5-32B-Instruct; None for any other name."""
    owner, _, name = path.partition("/")
    key = name.lower().replace(".", "_").replace("-", "_")
    return PRESETS.get(key) if owner == "Qwen" else _OTHERS.get(path)
