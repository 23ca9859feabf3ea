"""A privileged teacher: its prompt shows the worked solution, the student's does not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data.problem import Problem
from distill_jax.data.rollout_batch import RolloutBatch
from distill_jax.rewards.reprompted import with_prompts
from distill_jax.rewards.teacher import TeacherScorer
from distill_jax.rollout import rounds
from distill_jax.run.run import Run
from distill_jax.stages import checks, runner, teacher_prompts
from distill_jax.stages import teacher as teachers
from tests.stages.hf import tokenizer, write_model, write_problems
from tests.stages.small import rows, small, weights
from tests.stages.test_teacher import batch

pytestmark = pytest.mark.slow

SHOWN = "{question} Solution: {solution} Say it again."


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root, tok = tmp_path_factory.mktemp("prompts"), tokenizer()
    long = {"rows": 320, "tok": tok, "noise": 0.1, "max_position_embeddings": 256}
    return {
        "teacher__path": str(write_model(root / "teacher", seed=1, **long)),
        "student__path": str(write_model(root / "student", **long)),
        "data__source": str(write_problems(root / "data")),
        "stages": ("rl",),
        "rl__start": "base",
        "rl__eval_every": 0,
        "rl__batch_multiple": 8,
        "rl__teacher__max_prompt_tokens": 160,
        "distill__teacher__max_prompt_tokens": 160,
    }


def test_responses_stay_behind_other_prompts() -> None:
    made = with_prompts(
        {
            "tokens_BT": np.array([[7, 8, 1, 2, 0], [9, 3, 0, 0, 0]], np.int32),
            "prompt_len_B": np.array([2, 1], np.int32),
            "response_len_B": np.array([2, 1], np.int32),
            "targets_BR": np.array([[1, 2], [3, 0]], np.int32),
        },
        [[5], [6, 6, 6]],
        pad_id=0,
        multiple=2,
    )
    np.testing.assert_array_equal(made["tokens_BT"], [[5, 1, 2, 0], [6, 6, 6, 3]])
    np.testing.assert_array_equal(made["prompt_len_B"], [1, 3])
    np.testing.assert_array_equal(made["targets_BR"], [[1, 2], [3, 0]])
    assert "prompts_PS" not in made


def test_each_group_has_its_other_prompt_once() -> None:
    one = np.ones(4, np.int32)
    batch = {
        "tokens_BT": np.array([[7, 1], [7, 2], [9, 3], [9, 4]], np.int32), "prompt_len_B": one,
        "response_len_B": one, "targets_BR": np.array([[1], [2], [3], [4]], np.int32),
        "prompts_PS": np.array([[7], [9]], np.int32),
    }  # fmt: skip
    made = with_prompts(batch, [[5], [5], [6, 6, 8], [6, 6, 8]], pad_id=0, multiple=2)
    np.testing.assert_array_equal(made["prompts_PS"], [[5, 0, 0, 0], [6, 6, 8, 0]])


def launched(how: dict[str, Any], workdir: Path, prompt: str) -> tuple[Run, dict[str, Any], Any]:
    """The run, a batch whose prompts are those of its problems, and the teacher's scores of it."""
    run = Run(small(**how, rl__teacher__prompt=prompt), workdir)
    host, train = batch(run), run.data.problems("train")
    host = with_prompts(host, train.prompts[:8], pad_id=run.data.pad_id, multiple=8)
    other = dict.fromkeys(("response_mask_BR", "ended_B", "behaviour_logp_BR"))
    made = teachers.of_stage(run, run.stage("rl"), run.load_student("base"))
    assert made is not None
    scores = made.launch(RolloutBatch(**host, **other), train.problems[:8])()
    return run, host, scores


def test_scores_of_the_same_tokens_behind_the_teachers_prompt(
    how: dict[str, Any], tmp_path: Path
) -> None:
    """Row by row against the teacher on its prompt and the response, without any padding."""
    run, host, scores = launched(how, tmp_path, SHOWN)
    prompts = teacher_prompts.make(run, run.config.plan["rl"].teacher)
    assert prompts is not None
    loaded = run.models.load("teacher")
    alone = TeacherScorer(loaded.model, loaded.params, run.mesh, alpha=1.0, vocab=run.data.vocab)
    for row, problem in enumerate(run.data.problems("train").problems[:3]):
        (prompt,) = prompts.of([problem])
        n = int(host["response_len_B"][row])
        response = host["targets_BR"][row, :n]
        one = {
            "tokens_BT": np.array([[*prompt, *response]], np.int32),
            "prompt_len_B": np.array([len(prompt)], np.int32),
            "response_len_B": np.array([n], np.int32),
            "targets_BR": response[None],
        }
        wanted = alone.score(one)
        np.testing.assert_allclose(scores.q_BR[row, :n], wanted.q_BR[0], atol=1e-5)
        np.testing.assert_allclose(scores.value_BR[row, :n], wanted.value_BR[0], atol=1e-5)
        np.testing.assert_allclose(scores.end_value_B[row], wanted.end_value_B[0], atol=1e-5)
        text = run.data.tokenizer.decode(prompt)
        assert problem.solution in text and problem.question in text


def test_the_question_alone_is_the_students_prompt(how: dict[str, Any], tmp_path: Path) -> None:
    inside = np.arange(16) < launched(how, tmp_path, "")[1]["response_len_B"][:, None]
    plain, same, shown = (
        np.asarray(launched(how, tmp_path, prompt)[2].q_BR)[inside]
        for prompt in ("", "{question}", SHOWN)
    )
    np.testing.assert_array_equal(plain, same)
    assert np.abs(plain - shown).max() > 1e-3


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prompts that the student draws from."""
    seen: list[list[int]] = []
    real = rounds.generate

    def generate(sampler: Any, own: Any, prompts: Any, *args: Any, **more: Any) -> Any:
        seen.extend([list(prompt) for prompt in prompts])
        return real(sampler, own, prompts, *args, **more)

    monkeypatch.setattr(rounds, "generate", generate)
    return seen


def test_gold_never_reaches_the_student(
    how: dict[str, Any], tmp_path: Path, read: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the student draws from, and what its update reads, has no word of a solution."""
    updated: list[Any] = []
    monkeypatch.setattr(
        "distill_jax.stages.rl_step.RLStep._updates",
        _spy("distill_jax.stages.rl_step", "RLStep", "_updates", updated),
    )
    fast = {"rl__buckets__lengths": 2, "rl__cache__megabytes": 1.0}
    runner.run(small(**how, **fast, rl__teacher__prompt=SHOWN), tmp_path)
    run = Run(small(**how), tmp_path)
    known = {tuple(prompt) for prompt in run.data.problems("train").prompts}
    assert read and {tuple(prompt) for prompt in read} <= known
    for policy in updated:
        prompts_PS, length_P = np.asarray(policy.prompts_PS), np.asarray(policy.prompt_len_B)[::4]
        heads = {tuple(row[:p].tolist()) for row, p in zip(prompts_PS, length_P, strict=True)}
        assert heads <= known
    assert len(updated) == 2 and "Solution" not in str([run.data.text(p) for p in read])


def _spy(module: str, owner: str, name: str, seen: list[Any]) -> Any:
    import importlib

    real = getattr(getattr(importlib.import_module(module), owner), name)

    def method(self: Any, state: Any, policy: Any, step: int) -> Any:
        seen.append(policy)
        return real(self, state, policy, step)

    return method


@pytest.mark.parametrize("top_k", [0, 8])
def test_distillation_on_the_students_samples(
    how: dict[str, Any], tmp_path: Path, read: list[list[int]], top_k: int
) -> None:
    """{question} changes nothing; the solution changes the weights, not what the student reads."""
    changes = {
        "stages": ("distill",), "distill__data": "student_samples", "distill__eval_every": 0,
        "distill__loss__ce_weight": 0.0, "distill__loss__top_k": top_k,
        "distill__batch_size": 8, "distill__steps": 2,
    }  # fmt: skip
    kl, made = {}, {}
    for name, prompt in (("plain", ""), ("same", "{question}"), ("shown", SHOWN)):
        directory = tmp_path / name
        runner.run(small(**{**how, **changes}, distill__teacher__prompt=prompt), directory)
        kl[name] = rows(directory, "distill")[0]["kl"]
        made[name] = weights(directory, "distill")
    np.testing.assert_allclose(kl["plain"], kl["same"], rtol=1e-5)
    assert abs(kl["shown"] - kl["plain"]) > 1e-3 * kl["plain"]
    assert made["shown"] != made["plain"]
    if top_k:  # the same programs
        assert made["plain"] == made["same"]
    known = {tuple(one) for one in Run(small(**how), tmp_path / "same").data.problems("train")[1]}
    assert {tuple(prompt) for prompt in read} <= known


def test_what_cannot_be_is_refused(how: dict[str, Any], tmp_path: Path) -> None:
    for prompt in ("{solution}", "{question} {gold}"):
        with pytest.raises(ConfigError, match=r"rl\.teacher\.prompt='.*wanted: \{question\}"):
            small(**how, rl__teacher__prompt=prompt)
    with pytest.raises(ConfigError, match="wanted: data=student_samples"):
        small(**how, distill__teacher__prompt=SHOWN)
    short = {**how, "rl__teacher__max_prompt_tokens": 70, "rl__teacher__prompt": SHOWN}
    with pytest.raises(DataError, match="a teacher's prompt of .* tokens; wanted: at most 70"):
        checks.prepare(Run(small(**short), tmp_path))
    long = {**how, "rl__teacher__max_prompt_tokens": 250, "rl__teacher__prompt": SHOWN}
    with pytest.raises(ConfigError, match="take 274 positions; wanted: at most the teacher's 256"):
        checks.prepare(Run(small(**long), tmp_path))


def test_braces_of_a_solution_stay(how: dict[str, Any], tmp_path: Path) -> None:
    run = Run(small(**how, rl__teacher__prompt="{question}|{solution}|{answer}"), tmp_path)
    settings = run.config.plan["rl"].teacher
    parts = {"question": "{solution}", "solution": r"\frac{1}{2}", "answer": "{answer}"}
    assert settings.filled(parts) == r"{solution}|\frac{1}{2}|{answer}"
    bare = Problem("x", "How much?", "", "4")
    prompts = teacher_prompts.make(run, settings)
    assert prompts is not None
    assert "|#### 4|4" in run.data.tokenizer.decode(prompts.of([bare])[0])


def test_a_problem_without_a_solution_is_refused_where_the_prompt_shows_it_alone(
    how: dict[str, Any], tmp_path: Path
) -> None:
    words = Problem("x", "How much?", "4, without a program", "4")
    for template, shows in (("{question} It is {answer}.", False), (SHOWN, True)):
        longer = {**how, "rl__teacher__max_prompt_tokens": 220}
        run = Run(small(**longer, task="program", rl__teacher__prompt=template), tmp_path)
        prompts = teacher_prompts.make(run, run.config.plan["rl"].teacher)
        assert prompts is not None
        if shows:
            with pytest.raises(DataError, match="no solution that the task accepts"):
                prompts.of([words])
        else:
            assert "It is 4." in run.data.tokenizer.decode(prompts.of([words])[0])
