"""The tokenizer that a GGUF file carries: byte-level BPE of the families that are read here."""

import re
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from tokenizers import pre_tokenizers as pre

from distill_jax.core.errors import CheckpointError
from distill_jax.data.tokenizer import QWEN_SPLIT, FastTokenizer

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre -> how a text is split before merges; "gpt-2" is what ByteLevel does alone.
_GPT2, _LLAMA3 = "gpt-2", "llama-bpe"
_SPLITS: dict[str, str | None] = {
    _GPT2: None,
    "smollm": None,
    "qwen2": QWEN_SPLIT,
    "deepseek-r1-qwen": QWEN_SPLIT,
    _LLAMA3: _LLAMA3_SPLIT,
}
# tokenizer.ggml.token_type
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def tokenizer_of(values: Mapping[str, Any]) -> FastTokenizer:
    """The tokenizer in the key-value pairs of a GGUF file, its chat template included.

    Raises:
        CheckpointError: no tokenizer, or one of another kind, e.g. of SentencePiece.
    """
    kind, name = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")
    if kind != "gpt2" or name not in _SPLITS:
        raise CheckpointError(
            f"the file's tokenizer is {kind!r} with pre={name!r}",
            wanted=f"byte-level BPE ('gpt2') with pre of {', '.join(_SPLITS)}",
            fix="take the model as a Hugging Face directory, with its tokenizer.json",
        )
    texts, merges = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.merges"]
    types = values.get("tokenizer.ggml.token_type") or [1] * len(texts)
    if len(types) != len(texts):
        raise CheckpointError(f"{len(texts)} tokens with {len(types)} types")
    # Rows of the embedding without a token are listed, too.
    used = {
        text: i
        for i, (text, type_) in enumerate(zip(texts, types, strict=True))
        if type_ != _UNUSED and not re.fullmatch(rf"\[PAD{i}\]", text)
    }
    if max(used.values(), default=-1) + 1 != len(used):
        raise CheckpointError(
            f"{len(used)} tokens of the file have ids up to {max(used.values())}",
            wanted="rows without a token at the end alone",
        )
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    for pair in pairs:
        if not {*pair, "".join(pair)} <= used.keys():
            raise CheckpointError(f"the merge {' '.join(pair)!r} is of no tokens of the file")
    made = Tokenizer(models.BPE(vocab=used, merges=pairs, ignore_merges=name == _LLAMA3))
    made.pre_tokenizer, made.decoder = _pre_tokenizer(name), decoders.ByteLevel()
    if _SPLITS[name] == QWEN_SPLIT:
        made.normalizer = normalizers.NFC()
    added = [(text, types[i]) for text, i in used.items() if types[i] in (_CONTROL, _USER_DEFINED)]
    made.add_tokens(
        [AddedToken(text, special=type_ == _CONTROL, normalized=False) for text, type_ in added]
    )
    roles = _roles(values, texts)
    if values.get("tokenizer.ggml.add_bos_token", name == _LLAMA3) and "bos_token" in roles:
        bos = roles["bos_token"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, used[bos])]
        )
    return _wrapped(made, roles, values.get("tokenizer.chat_template"))


def _pre_tokenizer(name: str) -> pre.PreTokenizer:
    split = _SPLITS[name]
    if split is not None:
        byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre.Sequence([pre.Split(Regex(split), "isolated"), byte_level])
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == _GPT2:
        return byte_level
    return pre.Sequence([pre.Digits(individual_digits=True), byte_level])


def _roles(values: Mapping[str, Any], texts: list[str]) -> dict[str, str]:
    """ "eos_token" and the like -> the token's text, of those that the file names."""
    ids = {
        f"{role}_token": values.get(f"tokenizer.ggml.{n}_token_id") for role, n in _ROLES.items()
    }
    return {role: texts[i] for role, i in ids.items() if i is not None and i < len(texts)}


def _wrapped(made: Tokenizer, roles: dict[str, str], template: str | None) -> FastTokenizer:
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, clean_up_tokenization_spaces=False, **roles
    )
    wrapped.chat_template = template
    return wrapped
