"""Stage evolve: what its rounds draw, accept and learn on, and that it resumes to the same bits."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import batching, trace_rows
from distill_jax.data.chat import Example
from distill_jax.data.problem import half_of
from distill_jax.inference import process_scorer
from distill_jax.inference.store import AnswerStore
from distill_jax.models.reward_model_io import PRMConfig
from distill_jax.reasoning import steps
from distill_jax.reasoning.programs import fenced
from distill_jax.rollout.sampler import Rollout, Sampler
from distill_jax.run.run import Run
from distill_jax.sandbox import shared
from distill_jax.stages import checks, evolve, runner
from distill_jax.stages.evolve_rows import MixedRows
from distill_jax.stages.evolve_settings import EvolveSettings
from distill_jax.tasks import Judged, ProgramSettings, program_runs
from distill_jax.tasks.task import TextTask
from distill_jax.training.optimizer import OptimizerSettings
from tests.stages import traced
from tests.stages.small import rows, weights
from tests.stages.traced import files, plan, read

pytestmark = pytest.mark.slow

EVOLVE = EvolveSettings(
    rounds=2,
    problems=6,
    samples=4,
    batch=16,
    steps=2,
    batch_size=4,
    k=2,
    eval_problems=4,
    patience=9,
    pass_k_margin=1.0,
    optimizer=OptimizerSettings(learning_rate=1e-2),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return files(tmp_path_factory.mktemp("models"))


def verdict(name: str, text: str) -> int:
    """0: right, 1: undecided, 2 and 3: wrong; a random model solves nothing."""
    return (sum(map(ord, name)) + len(text)) % 4


@pytest.fixture(autouse=True)
def _judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(self: TextTask, problems: Any, texts: list[str], ended_B: Any) -> Judged:
        found = np.array([verdict(p.id, text) for p, text in zip(problems, texts, strict=True)])
        return Judged(found == 0, found == 1, [{} for _ in texts], [None for _ in texts])

    real = Sampler.generate

    def ended(self: Sampler, *arguments: Any, **how: Any) -> Rollout:
        """A random model hardly ever ends: its last token is EOS."""
        out = real(self, *arguments, **how)
        tokens_BR = out.tokens_BR.copy()
        tokens_BR[np.arange(len(tokens_BR)), out.length_B - 1] = self.eos_id
        return out._replace(tokens_BR=tokens_BR, ended_B=np.ones_like(out.ended_B))

    monkeypatch.setattr(Sampler, "generate", ended)
    monkeypatch.setattr(TextTask, "judge", judge)
    # What a random model writes has no other number than its answer.
    monkeypatch.setattr(TextTask, "guesses", lambda self, problems, texts: [False] * len(texts))


def run(workdir: Path, made: dict[str, Any], settings: EvolveSettings = EVOLVE, **more: Any) -> Run:
    config = plan({"evolve": settings}, **{"checkpoint__every": 1, "records__every": 1, **made})
    runner.run(config, workdir)
    return Run(config, workdir)


@pytest.fixture(scope="module")
def whole(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        _judged.__wrapped__(patch)
        return run(tmp_path_factory.mktemp("whole"), made)


def round_rows(of: Run, number: int) -> list[dict[str, Any]]:
    return read(of.workdir / "evolve" / f"round_{number}" / "rows.jsonl")


def record(of: Run, number: int) -> dict[str, Any]:
    return json.loads((of.workdir / "evolve" / f"round_{number}" / "record.json").read_text())


def figures(of: Run) -> dict[str, Any]:
    return json.loads((of.workdir / "evolve" / "done.json").read_text())["figures"]


def left(workdir: Path) -> dict[str, Any]:
    """Contents of what the stage leaves, without times and checkpoints."""
    found = {}
    for path in sorted((workdir / "evolve").rglob("*")):
        name = str(path.relative_to(workdir / "evolve"))
        if path.suffix in (".jsonl", ".safetensors") and "metrics" not in name:
            found[name] = path.read_bytes()
        elif path.name in ("record.json", "drawn.json"):
            found[name] = json.loads(path.read_text())
    return found


def test_a_round_s_record_counts_its_rows(whole: Run) -> None:
    ids = [problem.id for problem in whole.data.problems("train").problems[:6]]
    solved: set[str] = set()
    for number in (1, 2):
        right, found = round_rows(whole, number), record(whole, number)
        assert all(row["right"] and row["ended"] and row["round"] == number for row in right)
        assert found["tried"] == 24 and found["right"] == len(right) > 2
        kept = [row for row in right if row["accepted"]]
        assert found["accepted"] == len(kept)
        assert max(sum(row["id"] == one for row in kept) for one in ids) <= 2
        assert found["solved"] == len({row["id"] for row in right})
        assert found["newly_solved"] == len({row["id"] for row in right} - solved)
        solved |= {row["id"] for row in right}
        (level,) = found["levels"].values()
        assert level["yield"] == len({row["id"] for row in kept}) / 6 and level["problems"] == 6
        assert found["reward_model"] is found["exploration"] is None
    both = [*round_rows(whole, 1), *round_rows(whole, 2)]
    assert read(whole.rows("evolve")) == both
    assert [one.tokens for one in trace_rows.read(whole.rows("evolve"))] == [
        row["tokens"] for row in both
    ]
    # Other students write other solutions.
    assert [row["tokens"] for row in round_rows(whole, 1)] != [
        row["tokens"] for row in round_rows(whole, 2)
    ]
    held = [record(whole, number)["held_out"]["pass@1"] for number in (0, 1, 2)]
    assert figures(whole)["student_of_round"] == (2 if held[2] > held[1] else 1)
    assert figures(whole)["stopped"] == "" and len(figures(whole)["rounds"]) == 3


class Breaks:
    """Raises KeyboardInterrupt at the n-th call of a function, once."""

    def __init__(self, at: int):
        self.at, self.calls = at, 0

    def __call__(self, real: Any) -> Any:
        def call(*arguments: Any, **how: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt
            return real(*arguments, **how)

        return call


# Owner, function, call: while round 1 is drawn; when it is trained; before round 2's training has a
# checkpoint; in it; when it is trained; after all rounds.
BREAKS = (
    (AnswerStore, "add", 3),
    (AnswerStore, "add", 2),
    (batching, "pack_examples", 1),
    (batching, "pack_examples", 2),
    (AnswerStore, "add", 1),
    (evolve.export_files, "save_student", 1),
)


@pytest.mark.parametrize("trained_from", ["start", "previous"])
def test_broken_off_in_and_between_rounds_it_goes_on_to_the_same_bits(
    whole: Run,
    made: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained_from: str,
) -> None:
    how = dataclasses.replace(EVOLVE, trained_from=trained_from)
    other = whole if trained_from == "start" else run(tmp_path / "whole", made, how)
    for owner, name, call in BREAKS:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, Breaks(call)(getattr(owner, name)))
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "cut", made, how)
    assert (tmp_path / "cut" / "evolve" / "round_2" / "record.json").is_file()
    run(tmp_path / "cut", made, how)
    found, wanted = left(tmp_path / "cut"), left(other.workdir)
    assert found.keys() == wanted.keys() and len(found) > 8
    for name in wanted:
        assert found[name] == wanted[name], name
    if trained_from == "previous":
        assert weights(other.workdir, "evolve") and left(whole.workdir) != wanted


def test_batches_hold_the_share_of_own_solutions() -> None:
    own, base = ([Example([1], [n, 2]) for n in some] for some in (range(10, 13), range(20, 29)))
    mixed = MixedRows(own, base, 3, "seed")
    for step in range(3):
        first = [mixed.examples[i].response[0] for i in mixed.indices(step, 8)]
        assert sorted(first[:3]) == [10, 11, 12] and all(n >= 20 for n in first[3:])
    assert mixed.indices(1, 8).tolist() == mixed.indices(1, 8).tolist()
    assert len(mixed.examples) == 12
    assert [EvolveSettings(batch_size=8, base_share=share).own_rows for share in (0, 0.5, 0.9)] == [
        8, 4, 1,
    ]  # fmt: skip
    assert sorted(mixed.indices(0, 3)) == [0, 1, 2]  # without a given one


# --- reward models --------------------------------------------------------------------------------


class FakeScorer:
    """Scores each line of a completion by its length; remembers what it was asked."""

    how = steps.Format(separator="a")

    def __init__(self, run: Run, about: PRMConfig):
        self.run, self.about, self.asked = run, about, []

    def score(self, prompts: Any, completions: Any) -> list[np.ndarray]:
        self.asked += [self.run.data.text(prompt) for prompt in prompts]
        found = []
        for ids in completions:
            cut = steps.split_tokens(self.run.data.tokenizer, ids, self.how)
            found.append(np.array([(len(s.tokens) % 4) / 4 for s in cut], np.float32))
        return found

    def aggregate(self, scores: Any) -> np.ndarray:
        return np.array([one.min() if len(one) else np.nan for one in scores], np.float32)


def models(monkeypatch: pytest.MonkeyPatch, **halves: int) -> dict[str, FakeScorer]:
    """Reward models ./A, ./B … of these halves; -1: of unknown training."""
    made: dict[str, FakeScorer] = {}

    def about(reference: str) -> PRMConfig:
        half = halves[Path(reference).name]
        known: dict[str, Any] = {"problem_hash_salt": "0", "validation_share": 0.0}
        return PRMConfig(
            step_separator="a",
            trained_on={} if half < 0 else known | ({"half": half} if half else {}),
        )

    def load(run: Run, reference: str, **_: Any) -> FakeScorer:
        name = Path(reference).name
        made[name] = made.get(name) or FakeScorer(run, about(reference))
        return made[name]

    monkeypatch.setattr(process_scorer, "load", load)
    monkeypatch.setattr(process_scorer, "check", lambda _, ref, **__: (None, about(ref), 0))
    monkeypatch.setattr(checks, "check_reward_model", lambda *_: None)
    monkeypatch.setattr(Run, "reward_model", lambda self, _: self.workdir / "no_model")
    monkeypatch.setattr(Run, "digest", lambda self, _: "0")
    return made


ONE = dataclasses.replace(EVOLVE, rounds=1, reward_model="./A", threshold=0.2, problems=12)


def test_verifier_first_then_the_reward_model(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked = models(monkeypatch, A=0)
    of = run(tmp_path, made, ONE)
    right, found = round_rows(of, 1), record(of, 1)
    assert all(row["score"] > 0.2 for row in right if row["accepted"])
    low = [row for row in right if row["score"] is not None and row["score"] <= 0.2]
    assert low and not any(row["accepted"] for row in low)
    assert found["accepted"] == sum(row["accepted"] for row in right) > 0
    kept = found["reward_model"]
    above = sum(row["score"] is not None and row["score"] > 0.2 for row in right)
    assert kept["precision"] == pytest.approx(above / (kept["acceptance_rate"] * kept["scored"]))
    assert kept["recall"] == pytest.approx(above / len(right)) and 0 < kept["base_rate"] < 1
    # It was trained on all problems, these included: the record and the console say so.
    assert kept["problems_it_may_know"] == 12 and len(asked["A"].asked) == 48
    assert "may have been trained on 12 of these 12 problems" in capsys.readouterr().err


def test_each_half_is_scored_by_the_model_of_the_other(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = models(monkeypatch, A=2, B=1)
    of = run(tmp_path, made, dataclasses.replace(ONE, reward_model_other="./B"))
    pool = of.data.problems("train")
    halves = {
        of.data.text(prompt): half_of(one.question)
        for one, prompt in zip(pool.problems, pool.prompts, strict=True)
    }
    assert {halves[text] for text in asked["A"].asked} == {1}
    assert {halves[text] for text in asked["B"].asked} == {2}
    assert record(of, 1)["reward_model"]["problems_it_may_know"] == 0
    assert record(of, 1)["problems"] == 12


def test_a_model_of_one_half_leaves_its_problems_out(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    models(monkeypatch, A=2)
    of = run(tmp_path, made, ONE)
    firsts = [half_of(one.question) for one in of.data.problems("train").problems[:12]]
    assert 0 < record(of, 1)["problems"] == firsts.count(1) < 12
    assert f"{firsts.count(2)} of 12 problems are skipped, ./A" in capsys.readouterr().err
    assert record(of, 1)["reward_model"]["problems_it_may_know"] == 0


def test_two_models_of_one_half_are_refused(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models(monkeypatch, A=1, B=1)
    with pytest.raises(ConfigError, match="halves 1 and 1 of the problems; wanted: 1 and 2"):
        run(tmp_path, made, dataclasses.replace(ONE, reward_model_other="./B"))


def test_a_model_of_unknown_training(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models(monkeypatch, A=-1)
    of = run(tmp_path, made, ONE)
    assert record(of, 1)["reward_model"]["problems_it_may_know"] is None


def test_exploration_is_compared_at_equal_tokens(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models(monkeypatch, A=0)
    how = dataclasses.replace(ONE, explore=True, samples=2, threshold=0.3)
    of = run(tmp_path, made, how)
    found, plain = record(of, 1)["exploration"], record(of, 1)
    assert found["problems"] > 1 and found["fresh"]["problems"] <= found["problems"]
    least = min(12, found["tokens"])  # one sample of 12 tokens is always counted
    assert least <= found["fresh"]["tokens"] <= max(12, found["tokens"])
    assert plain["tried"] == 24 and plain["tokens"] == 24 * 12 + found["tokens"]
    again = [row for row in round_rows(of, 1) if row["sample"] == 2]
    assert len(again) == found["solved"]
    solved_before = {row["id"] for row in round_rows(of, 1) if row["sample"] < 2}
    assert not solved_before & {row["id"] for row in again}


def test_nothing_accepted_leaves_given_solutions_or_is_an_error(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    models(monkeypatch, A=0)
    how = dataclasses.replace(ONE, threshold=1.0, problems=4)
    with pytest.raises(DataError, match="no solution was accepted up to round 1; wanted: some"):
        run(tmp_path / "own", made, dataclasses.replace(how, base_share=0.0))
    of = run(tmp_path / "given", made, how)
    assert record(of, 1)["accepted"] == record(of, 1)["trained_on"] == 0
    assert "it learns on given solutions alone" in capsys.readouterr().err
    assert [row["step"] for row in rows(of.workdir, "evolve/round_1")] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explore": True}, "explore=True without reward_model"),
        ({"threshold": 0.7}, "threshold=0.7 without reward_model"),
        ({"reward_model_other": "b"}, "reward_model_other=b without reward_model"),
        ({"reward_model": "b", "reward_model_other": "b"}, "the same as reward_model"),
        ({"base_share": 1.0}, "base_share=1"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvolveSettings(**changes)


# --- programs -------------------------------------------------------------------------------------


def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of training on programs that ran in the sandbox; layout makes no new solution."""
    how = files(tmp_path, max_position_embeddings=512)
    paths = [tmp_path / "data" / f"{split}.jsonl" for split in ("train", "validation")]
    given = [row for path in paths for row in read(path)]
    worked = {row["question"]: row["answer"] for row in given}
    first, second, *_ = worked

    def replies(prompt: str) -> list[str]:
        asked = next(one for one in worked if one in prompt)
        # "<<3+2=5>>\n<<5-1=4>>\n#### 4"
        steps = re.findall(r"<<(\d+)([+-])(\d+)=", worked[asked])
        lines = [f"x = {steps[0][0]}", *(f"x {sign}= {n}" for _, sign, n in steps), "print(x)"]
        plain = "\n".join(lines)
        noted = plain.replace("x", "y").replace("\n", "  # a step\n\n")
        other = "print(1 / 0)"
        if asked == first:
            other = f"print({steps[0][0]}{''.join(sign + n for _, sign, n in steps)})"
        if asked == second:  # hard-coded: right, not learnt on
            plain = noted = f"x = {worked[asked].rpartition('#### ')[2]}\nprint(x)"
        return [fenced(text) for text in (plain, noted, other)]

    traced.scripted(monkeypatch, replies)
    s = dataclasses.replace(EVOLVE, rounds=1, samples=3, k=3, base_share=0.0, batch_size=8)
    config = plan({"evolve": s}, **{**how, "sampling__max_new_tokens": 256})
    programs = ProgramSettings(instruction="", wall_s=20.0, cpu_s=2.0)
    config = dataclasses.replace(config, task="program", programs=programs)
    runner.run(config, tmp_path / "run")
    of = Run(config, tmp_path / "run")
    found = record(of, 1)
    # 6 problems: two right programs each, which are one but for comments and names; one has three.
    assert (found["right"], found["accepted"], found["trained_on"]) == (13, 6, 6)
    assert found["guesses"] == 2
    kept = [row["completion"] for row in round_rows(of, 1) if row["accepted"]]
    assert sum("x =" not in text for text in kept) == 1 and not any("y =" in text for text in kept)
    assert found["held_out"]["pass@1"] == pytest.approx(2 / 3)
    assert found["held_out"]["pass@k"] == 1.0
    assert [row["step"] for row in rows(of.workdir, "evolve/round_1")] == [1, 2]
    shared.close_shared()
    program_runs.forget()
