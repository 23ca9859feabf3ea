"""A tokenizer of the form of Llama 2's and Mistral's, with the chat format of Mistral's first."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers
from tokenizers.trainers import BpeTrainer

SPECIALS = ["<unk>", "<s>", "</s>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '[INST] ' + message.content + ' [/INST]' if message.role == 'user'"
    " else message.content + eos_token }}{% endfor %}"
)


def sentence_piece(texts: Iterable[str], size: int = 400) -> Any:
    """▁ for a space, one of them before a text; bytes of unknown letters as <0xNN>, ids from 3.

    size: most tokens, the 3 special ones and the 256 bytes included.
    """
    from transformers import PreTrainedTokenizerFast

    drawn = Tokenizer(models.BPE())
    drawn.normalizer = normalizers.Replace(" ", "▁")
    trainer = BpeTrainer(vocab_size=size - len(SPECIALS) - 256, show_progress=False)
    # A word at a time: no merge spans two.
    drawn.train_from_iterator((f" {word}" for text in texts for word in text.split()), trainer)
    learnt = json.loads(drawn.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].get)
    names = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    made = Tokenizer(
        models.BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=[tuple(pair) for pair in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    space = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*space, decoders.Strip(" ", 1, 0)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    wrapped.chat_template = TEMPLATE
    return wrapped
