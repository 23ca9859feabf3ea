"""Whether AutoTokenizer of transformers reads an export's tokenizer as this project does."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.data.chat import ChatSettings, messages
from distill_jax.data.problem import Problem

# What pre-tokenizers split in different ways: digits, white space, marks, words of other scripts.
_TEXTS = (
    "Natalia sold 7 clips in April, and 1234567 boxes of 5 clips in May. How many?",
    "  a  b\t\tc \n\n\n d\r\n   ",
    "don't I'LL x==y; f(x)=-3.14e10 $\\frac{1}{2}$...",
    "na\u00efve cafe\u0301 \u6771\u4eac \u0645\u0631\u062d\u0628\u0627 \U0001f642 \u00bd",
)


def difference(tokenizer: Any, config: Mapping[str, Any], chat: ChatSettings) -> str:
    """One sentence on the first text that AutoTokenizer splits differently; "" where none is.

    transformers 5 rebuilds the tokenizer of some model types (qwen2) from vocabulary and merges,
    whatever `tokenizer_class` says: the splitting of `tokenizer.json` is then lost.

    Args:
        tokenizer: as this project reads it, from `tokenizer.json`.
        config: values of the config.json that is written next to it; {} for none.
        chat: how a question becomes a prompt; such a prompt is compared, too.
    """
    from transformers import AutoTokenizer  # seconds, where torch is installed

    texts = list(_TEXTS)
    if tokenizer.chat_template is not None:
        prompt = messages(Problem("check", _TEXTS[0], "", ""), chat)
        texts.append(
            tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        )
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        if config:
            (Path(place) / "config.json").write_text(json.dumps(config))
        other = AutoTokenizer.from_pretrained(place)
    for text in texts:
        ours, theirs = (
            one(text, add_special_tokens=False)["input_ids"] for one in (tokenizer, other)
        )
        if ours != theirs:
            return (
                f"AutoTokenizer makes a {type(other).__name__}, which does not split texts as "
                f"tokenizer.json and this run do: {text[:40]!r}… has {len(theirs)} tokens in place "
                f"of {len(ours)}"
            )
    return ""
