"""The shape that every peer runs, and the one JSON line that each of them prints.

Standard library only: each peer imports this from its own virtual environment.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

# Qwen2 geometry; the weights are random, the embedding is tied to the head.
VOCAB_SIZE = 512
HIDDEN_SIZE = 128
INTERMEDIATE_SIZE = 384
NUM_LAYERS = 3
NUM_HEADS = 4
NUM_KV_HEADS = 2
HEAD_DIM = 32
ROPE_THETA = 10_000.0
RMS_NORM_EPS = 1e-6
INIT_STD = 0.02

LORA_RANK = 8
LORA_ALPHA = 16
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# GRPO: 8 prompts x 8 samples, 32 prompt tokens, exactly 64 completion tokens.
NUM_PROMPTS = 8
NUM_SAMPLES = 8
PROMPT_TOKENS = 32
COMPLETION_TOKENS = 64

# Supervised step and forward: 32 rows of 112 tokens; generation: 32 prompts of 32 tokens, 64 new.
SFT_ROWS = 32
SFT_TOKENS = 112
GENERATE_ROWS = 32

LEARNING_RATE = 1e-5  # any value costs the same; small enough that nothing diverges

# Both lie just past the vocabulary, so the model cannot sample them: no completion ends early,
# and no peer pays for a logits processor that would forbid them.
EOS_ID = VOCAB_SIZE
PAD_ID = VOCAB_SIZE + 1

# Counted by hand. A layer: q 128*128+128, k and v 128*64+64 each, o 128*128, MLP 3*128*384,
# two norms; then the embedding and the last norm. LoRA: rank * (in + out) for each projection.
BASE_PARAMETERS = 512 * 128 + 3 * (16_512 + 2 * 8_256 + 16_384 + 147_456 + 256) + 128
LORA_PARAMETERS = 3 * 8 * (256 + 2 * 192 + 256 + 3 * 512)


def words(ids: Sequence[int]) -> str:
    """Token ids as text: one word per token."""
    return " ".join(f"w{i}" for i in ids)


def prompt_texts(num_prompts: int = NUM_PROMPTS) -> list[str]:
    """Distinct prompts of exactly PROMPT_TOKENS words, the same for every peer."""
    draw = random.Random(0)
    return [
        words([draw.randrange(VOCAB_SIZE) for _ in range(PROMPT_TOKENS)])
        for _ in range(num_prompts)
    ]


def reward(completions: Sequence[str]) -> list[float]:
    """Share of even tokens in each completion: costs next to nothing, differs inside a group.

    Raises:
        RuntimeError: a completion is not COMPLETION_TOKENS long, so the figures would not compare.
    """
    scores = []
    for text in completions:
        ids = [int(word[1:]) for word in text.split()]
        require(len(ids), COMPLETION_TOKENS, "completion tokens")
        scores.append(sum(i % 2 == 0 for i in ids) / len(ids))
    return scores


def require(got: int, wanted: int, what: str) -> None:
    """Refuse to print figures of another shape."""
    if got != wanted:
        raise RuntimeError(f"{what}: got {got}, wanted {wanted}; these figures would not compare")


def parse_args(doc: str, repeats: int, warmup: int) -> argparse.Namespace:
    """Command line with --repeats and --warmup."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--repeats", type=int, default=repeats, help="repetitions measured")
    parser.add_argument("--warmup", type=int, default=warmup, help="repetitions thrown away first")
    args = parser.parse_args()
    if args.repeats < 1 or args.warmup < 0:
        parser.error("--repeats must be at least 1 and --warmup at least 0")
    return args


def measure(run: Callable[[], Any], repeats: int, warmup: int) -> list[float]:
    """Seconds of each of `repeats` calls, after `warmup` calls that do not count.

    `run` must return only when its work is done (no asynchronous result).
    """
    seconds = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def gaps(times: Sequence[float]) -> list[float]:
    """Seconds between one time and the next: one value fewer than `times`."""
    return [after - before for before, after in itertools.pairwise(times)]


def processor() -> str:
    """The processor's name where the system tells it, else the architecture."""
    info = pathlib.Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def summary(values: Sequence[float]) -> dict[str, float | int]:
    """Median, minimum, maximum and count."""
    return {
        "median": round(statistics.median(values), 6),
        "min": round(min(values), 6),
        "max": round(max(values), 6),
        "n": len(values),
    }


def print_line(
    peer: str,
    what: str,
    samples: dict[str, Sequence[float]],
    packages: Sequence[str],
    **extra: Any,
) -> None:
    """Print one JSON line: figures by name (unit at the end of the name), versions, cores."""
    line = {
        "peer": peer,
        "what": what,
        "figures": {name: summary(values) for name, values in samples.items()},
        **extra,
        "parameters": {"base": BASE_PARAMETERS, "lora": LORA_PARAMETERS},
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    print(json.dumps(line), flush=True)
