"""The guard of the first rollout: counts by hand, refusals that name the fix, a real stage."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.data import tokenizer as tokenizers
from distill_jax.data.chat import ChatSettings
from distill_jax.rollout.completions import MODEL, PROMPT, TOOL, Rollout
from distill_jax.run.settings import StageSettings
from distill_jax.stages import runner
from distill_jax.stages.first_rollout import Guard
from tests.stages.small import copy_stages, rows, small

TOKENIZER = tokenizers.train_tokenizer(["1 + 1 = 2"], 262)
END, OTHER = tokenizers.eos_id(TOKENIZER), TOKENIZER.convert_tokens_to_ids("<|endoftext|>")
FILE = "first_rollout.json"
PLAN = ("pretrain", "sft", "rl_2", "evaluate")


def rollout(*responses: list[int], role: list[int] | None = None) -> Rollout:
    """Of responses that end where their last token is the end token; padded with <|endoftext|>."""
    length_B = np.array([len(one) for one in responses], np.int32)
    size = int(length_B.max())
    tokens = np.array([[*one, *[OTHER] * (size - len(one))] for one in responses], np.int32)
    ended_B = np.array([one[-1] == END for one in responses])
    roles = None if role is None else np.array([role] * len(responses), np.int8)
    return Rollout(tokens, length_B, ended_B, np.zeros(tokens.shape, np.float32), roles)


def guard(
    directory: Path, most: float = 0.5, instruction: str = "", start: str = "base"
) -> tuple[Guard, list[str]]:
    said: list[str] = []
    run: Any = SimpleNamespace(
        data=SimpleNamespace(
            tokenizer=TOKENIZER,
            eos_id=END,
            text=lambda tokens: " ".join(map(str, tokens)),
            task=SimpleNamespace(is_void=lambda text: "1" not in text.split()),
        ),
        config=SimpleNamespace(
            sampling=SimpleNamespace(max_new_tokens=7),
            data=SimpleNamespace(chat=ChatSettings(instruction=instruction)),
            plan={name: StageSettings.kinds[name.removesuffix("_2")]() for name in PLAN},
            stages=("pretrain", "rl_2", "evaluate"),
        ),
        workdir=Path("runs/x"),
        say=said.append,
    )
    settings = SimpleNamespace(max_clipped=most, start=start)
    stage: Any = SimpleNamespace(name="rl_2", settings=settings)
    return Guard(run, stage, directory), said


def test_other_ends_of_tokenizers() -> None:
    assert tokenizers.other_ends(TOKENIZER) == [OTHER]
    known = {"<|endoftext|>": 1, "<|im_end|>": 2, "</s>": 3}

    def of(eos: int | None, *names: str) -> list[int]:
        vocabulary = {name: known[name] for name in names}
        return tokenizers.other_ends(
            SimpleNamespace(get_vocab=lambda: vocabulary, eos_token_id=eos)
        )

    assert of(1, "<|endoftext|>", "<|im_end|>") == [1]  # a base model of Qwen
    assert of(3, "<|endoftext|>", "<|im_end|>", "</s>") == [1, 3]
    assert of(1, "<|endoftext|>") == of(3, "</s>") == []


def test_half_cut_off_is_taken_and_one_more_is_not(tmp_path: Path) -> None:
    half = rollout([1, END], [END], [1, 2, 3], [1, 2, 3])
    guard(tmp_path)[0].check(half)
    want = {
        "completions": 4, "completions/clipped_ratio": 0.5, "completions/other_end_ratio": 0.0,
        "completions/no_answer_ratio": 0.25,
    }  # fmt: skip
    assert json.loads((tmp_path / FILE).read_text()) == want
    more = rollout([1, END], [1, 2, 3], [1, 2, 3], [1, 2, END, 4])
    with pytest.raises(ConfigError) as refused:
        guard(tmp_path)[0].check(more)
    said = str(refused.value)
    assert "3 of the 4 completions of rl_2's first step are cut off" in said
    assert "max_new_tokens=7 without <|im_end|>;" in said and "endoftext" not in said
    assert "wanted: at most 50% of them (rl_2.max_clipped)" in said
    assert "fix: start from a student that ends (rl_2.start: one trained on" in said
    assert "raise sampling.max_new_tokens, or set rl_2.max_clipped=1" in said
    assert json.loads((tmp_path / FILE).read_text())["completions/clipped_ratio"] == 0.75
    guard(tmp_path, most=1.0)[0].check(rollout([1], [2]))  # all, and it is to go on


def test_answers_that_are_not_found_are_worth_a_word(tmp_path: Path) -> None:
    # A third is taken, one more is said; the padding and what the model did not draw do not count.
    held, said = guard(tmp_path)
    held.check(rollout([1, END], [1, 2, END], [2, END]))
    assert said == []
    held.check(rollout([1, END], [2, 3, END], [2, END], [1, END], [3, END]))
    (line,) = said
    assert line.startswith("rl_2: 3 of the 5 completions of the first step state no answer")
    assert "data.chat.instruction" in line and "\\boxed{}" in line
    found = json.loads((tmp_path / FILE).read_text())
    assert found["completions/no_answer_ratio"] == 0.6
    held, said = guard(tmp_path, instruction="Use a box.")
    held.check(rollout([2, END]))
    assert "start from a student that was trained on solutions (rl_2.start)" in said[0]


def test_a_student_with_another_end_token(tmp_path: Path) -> None:
    # Padding is the same token and counts for nothing, nor does an output.
    found = rollout([1, OTHER, 5, 5], [OTHER, 5, 5, 5], [1, 1, 1, 1], [END])
    with pytest.raises(ConfigError) as refused:
        guard(tmp_path)[0].check(found)
    said = str(refused.value)
    assert "3 of the 4" in said and "2 contain <|endoftext|>, which ends no completion" in said
    flags = "--config.stages=\"('pretrain', 'sft', 'rl_2', 'evaluate')\" --config.rl_2.start=sft "
    flags += "--workdir=NEW --adopt=runs/x"
    assert f"fix: {flags}: stage sft teaches the student to end with <|im_end|>" in said
    assert "raise sampling" not in said
    with pytest.raises(ConfigError, match=r"fix: rl_2.start: a student that was trained on sol"):
        guard(tmp_path, start="sft")[0].check(found)
    assert json.loads((tmp_path / FILE).read_text())["completions/other_end_ratio"] == 0.5
    output = rollout([1, OTHER, 5], [1, OTHER, END], role=[MODEL, TOOL, MODEL])
    guard(tmp_path)[0].check(output)
    assert json.loads((tmp_path / FILE).read_text())["completions/other_end_ratio"] == 0.0
    assert PROMPT != TOOL


def test_the_teachers_mass_at_the_end_is_added(tmp_path: Path) -> None:
    for mass, warned in ((0.6, False), (0.05, True)):
        one, said = guard(tmp_path)
        one.check(rollout([1, END], [1, END]))
        one.record({"teacher/mass_at_end": np.float32(mass)})
        found = json.loads((tmp_path / FILE).read_text())
        assert found["teacher/mass_at_end"] == pytest.approx(mass) and found["completions"] == 2
        assert bool(said) == warned
    assert "rl_2: where the student ends the teacher gives <|im_end|> a probability" in said[0]
    one.check(rollout([1, END], [1, END]))
    one.record({})
    assert "teacher/mass_at_end" not in json.loads((tmp_path / FILE).read_text())


@pytest.mark.parametrize("stage", ["rl", "distill"])
def test_a_stage_is_refused_before_its_update_and_goes_on_when_told(
    stage: str, begun: Path, tmp_path: Path
) -> None:
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    settings: dict[str, Any] = {
        "stages": (stage,),
        f"{stage}__steps": 1,
        f"{stage}__eval_every": 0,
        f"{stage}__optimizer__warmup_steps": 0,
    }
    if stage == "distill":
        settings |= {
            "distill__data": "student_samples",
            "distill__loss__ce_weight": 0.0,
        }
    else:
        settings["rl__samples_per_prompt"] = 2
    for _ in range(2):  # the same decision, again
        with pytest.raises(ConfigError, match=rf"first step are cut off .*{stage}.max_clipped"):
            runner.run(small(**settings, **{f"{stage}__max_clipped": 0.5}), workdir)
        assert not (workdir / stage / "metrics.jsonl").exists() or not rows(workdir, stage)
    first = json.loads((workdir / stage / FILE).read_text())
    assert first["completions/clipped_ratio"] > 0.5
    runner.run(small(**settings), workdir)
    (row,) = rows(workdir, stage)
    assert row["completions/clipped_ratio"] == pytest.approx(first["completions/clipped_ratio"])
