"""Turns of a model with 20 tokens: each token a letter, and a task that answers some of them."""

from distill_jax.data.sources import DataSettings
from distill_jax.tasks import Reply, TextTask
from tests.tiny import EOS, PAD, VOCAB

LETTERS = "abcdefghijklmnopqrst"
assert LETTERS[PAD] == "a" and LETTERS[EOS] == "f" and len(LETTERS) == VOCAB


class Letters:
    """A tokenizer: token n is the n-th letter; other characters, and EOS in a text, have none."""

    def decode(self, ids, skip_special_tokens):
        return "".join(LETTERS[i] for i in ids if i != EOS)

    def __call__(self, text, add_special_tokens, split_special_tokens):
        assert not add_special_tokens and split_special_tokens
        return {"input_ids": [LETTERS.index(letter) for letter in text if letter in LETTERS]}


class Asks(TextTask):
    """A turn ends with any of `marks`; the reply is `reply`, no reply where a turn has a k.

    A call fails where the turn has a c. A turn is void without any of `marks` and without an s.
    """

    takes_turns = True

    def __init__(self, marks="bdgmq", reply="fan"):
        super().__init__(DataSettings(), Letters())
        self.marks, self.reply, self.asked = marks, reply, []

    def asks(self, text):
        return any(mark in text for mark in self.marks)

    def respond(self, texts):
        self.asked += texts
        return [None if "k" in text else Reply(self.reply, "c" in text) for text in texts]

    def is_void(self, text):
        return not self.asks(text) and "s" not in text
