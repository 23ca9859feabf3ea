"""A tokenizer with the plain split of ByteLevel, as Tokenizers' quick tour makes it."""

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from distill_jax.data.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, SPECIALS, TURN_END

TEXT = "Natalia sold 1234567 boxes of 5 clips in May. How many 12 and 345?"


def byte_level_tokenizer() -> Any:
    """At most 400 tokens; numbers of several digits are one token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 20, trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=TURN_END, pad_token=END_OF_TEXT
    )
    found.chat_template = CHAT_TEMPLATE
    return found
