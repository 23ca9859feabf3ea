"""Byte-level BPE as Qwen has it: training, saving, loading, and comparing two of them."""

import json
import shutil
import tempfile
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.trainers import BpeTrainer

from distill_jax.core.errors import CheckpointError, ConfigError, TokenizerMismatchError

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
FastTokenizer = Any  # PreTrainedTokenizerFast, whose import takes a second: only in functions
SPECIALS = (END_OF_TEXT, TURN_START, TURN_END)

# Qwen2's split: contractions, words with the character before them, single digits, punctuation
# with the line breaks after it, line breaks, white space.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# ChatML as Qwen2.5 writes it, but without a system prompt that nobody asked for.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_BYTES = 256
_ROLE_WORDS = ("system\nuser\nassistant\n",) * 1000


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> FastTokenizer:
    """A tokenizer of at most `vocab_size` entries, specials (the last ids) included.

    Args:
        texts: what to learn merges from; role words of the chat format are added.
        vocab_size: at least 259 (256 bytes and 3 specials).

    Raises:
        ConfigError: vocab_size is too small.
    """
    smallest = _BYTES + len(SPECIALS)
    if vocab_size < smallest:
        raise ConfigError(f"vocab_size={vocab_size}", wanted=f"at least {smallest}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(QWEN_SPLIT), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(SPECIALS),
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(texts, _ROLE_WORDS), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def save_tokenizer(tokenizer: FastTokenizer, directory: str | Path) -> None:
    """Writes the tokenizer's files into a directory, each written atomically."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".tokenizer-", dir=directory))
    try:
        tokenizer.save_pretrained(beside)
        for file in sorted(beside.iterdir()):
            file.replace(directory / file.name)
    finally:
        shutil.rmtree(beside)


def load_tokenizer(path_or_id: str | Path) -> FastTokenizer:
    """The tokenizer of a local model directory or a hub id; torch is not imported.

    One without a chat template that has <|im_start|> and <|im_end|> gets ChatML.

    Raises:
        CheckpointError: nothing there, or not a fast tokenizer.
    """
    try:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(path_or_id))
    except (OSError, ValueError, KeyError, TypeError) as error:  # what damaged files raise there
        raise CheckpointError(
            f"no tokenizer at {path_or_id}: {(str(error) or repr(error)).splitlines()[0]}",
            wanted="a directory with tokenizer.json, or a hub id that can be reached",
            fix="name a local directory, or run where the hub can be reached",
        ) from error
    vocabulary = tokenizer.get_vocab()
    if tokenizer.chat_template is None and TURN_START in vocabulary and TURN_END in vocabulary:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def note_of_chatml(tokenizer: FastTokenizer, model: str | Path) -> str:
    """A line for the log where `load_tokenizer` found no chat template and took ChatML, else ""."""
    if tokenizer.chat_template is not CHAT_TEMPLATE:  # a template of a file is another object
        return ""
    return (
        f"{model} has no chat template: prompts are ChatML (<|im_start|>user … <|im_end|>); for "
        "another form add chat_template.jinja"
    )


def eos_id(tokenizer: FastTokenizer) -> int:
    """The token that ends a response: <|im_end|> where it exists, else the tokenizer's EOS.

    Raises:
        ConfigError: the tokenizer has neither.
    """
    found = tokenizer.get_vocab().get(TURN_END, tokenizer.eos_token_id)
    if found is None:
        raise ConfigError("tokenizer without an end token", wanted=f"{TURN_END} or eos_token")
    return int(found)


def other_ends(tokenizer: FastTokenizer) -> list[int]:
    """Tokens that end a text elsewhere, and not here: <|endoftext|> and the tokenizer's EOS.

    A base model ends with one of them, where `eos_id` is <|im_end|>.
    """
    known = tokenizer.get_vocab()
    found = {known.get(END_OF_TEXT), tokenizer.eos_token_id} - {None, eos_id(tokenizer)}
    return sorted(found)


def pad_id(tokenizer: FastTokenizer) -> int:
    """The token that fills rows; any id will do, for nothing reads it."""
    found = tokenizer.pad_token_id
    return eos_id(tokenizer) if found is None else int(found)


def check_same_tokenizer(
    teacher: FastTokenizer,
    student: FastTokenizer,
    *,
    name: str = "teacher",
    apart: int | None = None,
) -> None:
    """Every id means the same to both; the models' embeddings may have more rows than ids.

    Args:
        teacher, student: the tokenizers.
        name: of the first one's model, for the error.
        apart: an id whose meaning may differ, if it is an added token of each that has it.

    Raises:
        TokenizerMismatchError: naming the first id, or merge, that differs.
    """
    ours = {index: text for text, index in student.get_vocab().items()}
    theirs = {index: text for text, index in teacher.get_vocab().items()}
    both = ((teacher, theirs), (student, ours))
    if all(apart not in known or apart in tok.added_tokens_decoder for tok, known in both):
        for _, known in both:
            known.pop(apart, None)
    ids = sorted(ours.keys() | theirs.keys())
    tokens = ((f"token {index}", theirs.get(index), ours.get(index)) for index in ids)
    merges = zip(count(), _merges(teacher), _merges(student), strict=False)
    for what, left, right in chain(tokens, ((f"merge {rank}", *two) for rank, *two in merges)):
        if left != right:
            raise TokenizerMismatchError(
                f"{what} is {left!r} to the {name} and {right!r} to the student",
                wanted="one tokenizer",
                fix="take teacher and student of one family, or distil from the teacher's texts "
                "instead"
                if name == "teacher"
                else f"train the {name} from this student, or from one of its family",
            )


def _merges(tokenizer: FastTokenizer) -> list[object]:
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges", [])
