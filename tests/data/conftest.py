import pytest

from distill_jax.data import synthetic
from distill_jax.data.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tok():
    """The tokenizer of the tiny preset."""
    return train_tokenizer(synthetic.texts(synthetic.ProblemSettings(), 0, 2000), 512)
