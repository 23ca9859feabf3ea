"""The tokenizer that a GGUF file carries: byte-level BPE of the families that are read here."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from tokenizers import pre_tokenizers as pre

from distill_jax.core.errors import CheckpointError, ConfigError
from distill_jax.data.tokenizer import QWEN_SPLIT, FastTokenizer, eos_id, pad_id

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
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
# Keys behind "tokenizer.": of a single value, and of lists that a file needs or may have.
_VALUES = {
    "ggml.model": str,
    "ggml.pre": str,
    "chat_template": str,
    "ggml.add_bos_token": bool,
    **{f"ggml.{role}_token_id": int for role in _ROLES.values()},
}
_LISTS = {"ggml.tokens": str, "ggml.merges": str, "ggml.token_type": int}
_KINDS = {str: "a text", bool: "true or false", int: "a whole number, 0 or more"}
_DAMAGED = "take another file of the model, or its Hugging Face directory"
_ELSEWHERE = "use --merged: its tokenizer.json holds every tokenizer"


def tokenizer_of(values: Mapping[str, Any]) -> FastTokenizer:
    """The tokenizer in the key-value pairs of a GGUF file, its chat template included.

    Raises:
        CheckpointError: no tokenizer, or one of another kind, e.g. of SentencePiece.
    """
    for key, type_ in _VALUES.items():
        if (value := values.get(f"tokenizer.{key}")) is not None:
            _check_type(key, value, type_)
    kind, name = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")
    if kind != "gpt2" or name not in _SPLITS:
        raise CheckpointError(
            f"the file's tokenizer is {kind!r} with pre={name!r}",
            wanted=f"byte-level BPE ('gpt2') with pre of {', '.join(_SPLITS)}",
            fix="take the model as a Hugging Face directory, with its tokenizer.json",
        )
    texts, merges, types = (
        _list(values, key, type_, optional=key == "ggml.token_type")
        for key, type_ in _LISTS.items()
    )
    types = types or [_NORMAL] * len(texts)
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
        if len(pair) != 2 or not {*pair, "".join(pair)} <= used.keys():
            raise CheckpointError(f"the merge {' '.join(pair)!r} is of no tokens of the file")
    made = Tokenizer(models.BPE(vocab=used, merges=pairs, ignore_merges=name == _LLAMA3))
    made.normalizer, made.pre_tokenizer = _normalizer(name), _pre_tokenizer(name)
    made.decoder = decoders.ByteLevel()
    added = [(text, types[i]) for text, i in used.items() if types[i] in (_CONTROL, _USER_DEFINED)]
    # A file has no `normalized`: llama.cpp looks for these tokens in the text as it is, whatever
    # their tokenizer.json said.
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


def _list(values: Mapping[str, Any], key: str, type_: type, *, optional: bool) -> list[Any]:
    """A list of a file, [] where an optional one is missing."""
    found = values.get(f"tokenizer.{key}")
    if found is None and optional:
        return []
    if not isinstance(found, list):
        raise CheckpointError(f"no list tokenizer.{key} in the file", fix=_DAMAGED)
    for i, value in enumerate(found):
        _check_type(f"{key}[{i}]", value, type_)
    return found


def _check_type(key: str, value: Any, type_: type) -> None:
    right = isinstance(value, type_) and (type_ is bool or not isinstance(value, bool))
    if not right or (type_ is int and value < 0):
        got = f"tokenizer.{key} is {value!r:.40} in the file"
        raise CheckpointError(got, wanted=_KINDS[type_], fix=_DAMAGED)


def values_of(tokenizer: FastTokenizer, rows: int) -> dict[str, Any]:
    """The key-value pairs that `tokenizer_of` reads: tokens, merges, roles, chat template.

    Args:
        tokenizer: byte-level BPE of a family that is read here.
        rows: of the embedding; those without a token are listed as unused.

    Raises:
        ConfigError: a tokenizer that a GGUF file does not hold, more tokens than rows, ids
            without a token among the others, or no merges.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    name, added = _family(spec), tokenizer.added_tokens_decoder
    for token in added.values():
        if token.lstrip or token.rstrip or token.single_word:
            got = f"the token {token.content!r} takes in the white space or words around it"
            raise ConfigError(got, wanted="tokens that stand for their text", fix=_ELSEWHERE)
    ids = {i: text for text, i in tokenizer.get_vocab().items()}
    if max(ids) + 1 != len(ids) or len(ids) > rows:
        got = f"{len(ids)} tokens with ids up to {max(ids)} for {rows} embedding rows"
        raise ConfigError(got, wanted="ids without a gap, and a row for each", fix=_ELSEWHERE)
    if not spec["model"]["merges"]:
        got = "a tokenizer without merges for a GGUF file"
        raise ConfigError(got, wanted="one at least, as llama.cpp needs", fix=_ELSEWHERE)
    types = dict.fromkeys(ids, _NORMAL)
    types |= {i: _CONTROL if token.special else _USER_DEFINED for i, token in added.items()}
    # Texts of merges are joined by a space, which no byte-level token has.
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in spec["model"]["merges"]]
    roles = {
        "bos": tokenizer.bos_token_id,
        "eos": eos_id(tokenizer),
        "padding": pad_id(tokenizer),
        "unknown": tokenizer.unk_token_id,
    }
    template = tokenizer.chat_template
    found = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": [ids.get(i, f"[PAD{i}]") for i in range(rows)],
        "tokenizer.ggml.token_type": [types.get(i, _UNUSED) for i in range(rows)],
        "tokenizer.ggml.merges": merges,
        **{f"tokenizer.ggml.{role}_token_id": i for role, i in roles.items()},
        "tokenizer.ggml.add_bos_token": _adds_bos(tokenizer),
        "tokenizer.chat_template": template.get("default")
        if isinstance(template, dict)
        else template,
    }
    return {key: value for key, value in found.items() if value is not None}


def _family(spec: Mapping[str, Any]) -> str:
    """tokenizer.ggml.pre of a tokenizer.json; ConfigError for a tokenizer of no family here."""
    kind, decoder = spec["model"]["type"], spec["decoder"] or {}
    if kind != "BPE" or decoder.get("type") != "ByteLevel":
        got = f"a tokenizer of model {kind} with decoder {decoder.get('type')}"
        raise ConfigError(f"{got} for a GGUF file", wanted="byte-level BPE", fix=_ELSEWHERE)
    found = [_plain(spec["normalizer"]), _plain(spec["pre_tokenizer"])]
    whole_words = bool(spec["model"].get("ignore_merges"))
    for name in _SPLITS:
        ours = [_normalizer(name), _pre_tokenizer(name)]
        states = [_plain(json.loads(x.__getstate__())) if x is not None else None for x in ours]
        if found == states and whole_words == (name == _LLAMA3):
            return name
    got = f"a tokenizer that splits texts by {json.dumps(found[1]):.120}"
    wanted = f"the normalizer, split and merges of one of {', '.join(_SPLITS)}"
    raise ConfigError(f"{got} for a GGUF file", wanted=wanted, fix=_ELSEWHERE)


def _plain(state: Any) -> Any:
    """A part of tokenizer.json without what changes no token: offsets."""
    if isinstance(state, list):
        return [_plain(entry) for entry in state]
    if not isinstance(state, dict):
        return state
    return {key: _plain(value) for key, value in state.items() if key != "trim_offsets"}


def _adds_bos(tokenizer: FastTokenizer) -> bool:
    whole, bare = (tokenizer("a", add_special_tokens=x)["input_ids"] for x in (True, False))
    if whole not in (bare, [tokenizer.bos_token_id, *bare]):
        got = f"a tokenizer that makes {whole} of a text with the tokens {bare}"
        raise ConfigError(got, wanted="nothing or its first token added", fix=_ELSEWHERE)
    return bool(whole != bare)


def _normalizer(name: str) -> normalizers.Normalizer | None:
    return normalizers.NFC() if _SPLITS[name] == QWEN_SPLIT else None


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
