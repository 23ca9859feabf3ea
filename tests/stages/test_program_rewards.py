"""A reward model of programs: labels from runs and from completions; what trains and reads it."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import CheckpointError, ConfigError, DataError
from distill_jax.data.fences import fenced
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.inference import process_scorer
from distill_jax.inference.store import AnswerStore
from distill_jax.reasoning import steps
from distill_jax.reasoning.steps import Format, StepSettings
from distill_jax.rewards.process import ProcessSettings
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.stages import executed, runner, step_labels
from distill_jax.stages.executed import ExecutedSettings
from distill_jax.stages.injected import InjectedSettings
from distill_jax.stages.prm_rows import LabelledRows
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.rl_step import RLStep
from distill_jax.stages.step_bench import SCORES_FILE, StepBenchSettings
from distill_jax.stages.step_labels import STORE_FILE, StepLabelSettings
from distill_jax.stages.traces import TraceSettings
from distill_jax.tasks import program_runs
from tests.stages.small import copy_stages, rows, small
from tests.stages.traced import CUT, Scripted, files, plan, read, scripted

pytestmark = pytest.mark.slow

TASK = {"task": "program", "programs__instruction": "", "programs__wall_s": 30.0}
QUESTION = "How much is 2 + 3 + 1?"


def write(path: Path, sampler: Scripted, solutions: list[tuple[str, bool]]) -> Path:
    """Rows of stage traces: solutions of one problem whose answer is 6, and their verdicts."""
    found = [
        {
            "id": "a", "question": QUESTION, "answer": "6", "completion": text,
            "tokens": [*sampler.encode(text), sampler.tok.eos_token_id], "ended": True,
            "right": right, "undecided": False, "sample": number,
        }
        for number, (text, right) in enumerate(solutions)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    more = {"sampling__max_new_tokens": 48, "sampling__segment": 24}
    return {**files(tmp_path_factory.mktemp("models"), max_position_embeddings=256), **TASK, **more}


# --- labels from runs -----------------------------------------------------------------------------

GOOD = fenced("n = 2\nn += 3\nn += 1\nprint(n)")
# (completion, the first wrong step or None, what the figures call it)
RUN = [
    (GOOD, -1, "right"),
    ("So:\n" + fenced("# two\nn = 2\n# more\nn += m\nprint(n)") + "\nIt is 5.", 1, "failed"),
    (fenced("n = 6\nassert n < 6\nprint(n)"), 1, "failed"),
    # The statement that was run, not the one that the function holds.
    (fenced("def f():\n    return 1 / 0\nn = 6\nprint(f())"), 2, "failed"),
    (fenced("n = (\n2 +\n1 / 0)\nprint(n)"), 0, "failed"),
    (fenced("n = 6\nn = = 6\nprint(n)"), 1, "failed"),
    (fenced("n = 6\nopen('a')\nprint(n)"), 1, "failed"),
    # An answer that is printed before the error is none.
    (fenced("print(6)\nprint(é)\n"), 1, "failed"),
    # Running says nothing of which step is wrong.
    (fenced("n = 2\nprint(n)"), None, "wrong_answer"),
    (fenced("n = 6"), None, "wrong_answer"),
    (fenced("n = 6\nraise SystemExit(1)"), None, "no_line"),
    ("The answer is 6.", None, "no_program"),
    ("```python\nprint(6)", None, "no_program"),
    # Nor anything of the steps of a program that was not run.
    (fenced("n = 6") + "\nor\n" + fenced("print(m)"), None, "no_line"),
]  # fmt: skip


def test_the_first_step_that_fails_is_wrong(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sampler = scripted(monkeypatch, {})
    data = write(tmp_path / "rows.jsonl", sampler, [(text, False) for text, *_ in RUN])
    config = plan({"executed": ExecutedSettings(data=str(data))}, **made)
    runner.run(config, tmp_path / "run")
    found = read(tmp_path / "run" / "executed" / "rows.jsonl")
    assert [(row["sample"], row["label"]) for row in found] == [
        (number, label) for number, (_, label, _) in enumerate(RUN) if label is not None
    ]
    assert [row["final_answer_correct"] for row in found] == [row["label"] == -1 for row in found]
    assert found[1]["steps"] == [
        "So:\n```python\n# two\nn = 2", "# more\nn += m\nprint(n)\n```\nIt is 5.",
    ]  # fmt: skip
    names = [what for *_, what in RUN]
    figures = json.loads((tmp_path / "run" / "executed" / "done.json").read_text())["figures"]
    assert figures == {
        "rows": 8, "undecided": 0, "empty_rows": 0,
        **{name: names.count(name) for name in set(names)},
    }  # fmt: skip
    # The same again, as after a kill: programs that ran are run anew.
    whole = (tmp_path / "run" / "executed" / "rows.jsonl").read_bytes()
    (tmp_path / "run" / "executed" / "done.json").unlink()
    program_runs.forget()
    runner.run(config, tmp_path / "run")
    assert (tmp_path / "run" / "executed" / "rows.jsonl").read_bytes() == whole


def test_what_nothing_labels_is_refused(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sampler = scripted(monkeypatch, {})
    data = write(tmp_path / "rows.jsonl", sampler, [(fenced("print(5)"), False), ("5", False)])
    settings = ExecutedSettings(data=str(data))
    with pytest.raises(DataError, match="none of 2 .*: no_program 1, wrong_answer 1"):
        runner.run(plan({"executed": settings}, **made), tmp_path / "run")
    text = {**made, "task": "text", "programs__wall_s": 5.0}
    with pytest.raises(ConfigError, match="executed: step_split=program with task=text"):
        plan({"executed": settings}, **text)
    with pytest.raises(ConfigError, match="labels.step_split=program with task=text"):
        plan({"labels": StepLabelSettings(data=str(data), step_split="program")}, **text)


def test_a_machine_that_fails_says_nothing() -> None:
    detail = {"equal": None, "ran": False, "status": "late"}
    assert executed.label(2, detail) == (None, "undecided")


def test_a_failing_line_is_in_the_step_of_its_last_byte(made: dict[str, Any]) -> None:
    tok = Scripted({}).tok
    text = "Hé\n" + fenced("s = 'é'\r\n\nt = [\n  1]\nprint(s)")
    ids = [*tok.encode(text, add_special_tokens=False), tok.eos_token_id]
    split = steps.split_tokens(tok, ids, Format("program"))
    assert len(split) == 3
    of = [executed.step_of_line(tok, ids, split, line) for line in (1, 2, 3, 4, 5, 6, None)]
    assert of == [0, None, 1, 1, 2, None, None]


# --- labels from completions ----------------------------------------------------------------------

END = "print(n)\n```"
REPLIES = {
    "": [GOOD, "6", fenced("print(6)") + CUT, "```python\nprint(6)"],
    "```python\nn = 2\n": ["n += 4\n" + END, END, "n += 4\nprint(n)", "n += 4\n" + END + CUT],
    "```python\nn = 2\nn += 3\n": ["n += 1\n" + END, "n += 1\n" + END, END, "n = (\n" + END],
    # What is printed last counts.
    "```python\nn = 2\nn += 3\nn += 1\n": [END, "print(n, 7)\n```", "```", END],
    "```python\nn = 7\n": [END] * 4,
}


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return scripted(monkeypatch, REPLIES)


def labels(workdir: Path, made: dict[str, Any], data: Path) -> list[dict[str, Any]]:
    settings = StepLabelSettings(data=str(data), n=4, batch=8, step_split="program")
    runner.run(plan({"labels": settings}, **made), workdir)
    return read(workdir / "labels" / "rows.jsonl")


def counts(right: int, wrong: int, undecided: int = 0) -> dict[str, int]:
    return {"right": right, "wrong": wrong, "undecided": undecided}


def test_completions_are_judged_as_one_program_with_their_prefix(
    made: dict[str, Any], sampler: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []
    real = step_labels.generate.verdicts

    def verdicts(run: Run, problems: Any, texts: Any, ended_B: Any) -> Any:
        seen.extend(texts)
        return real(run, problems, texts, ended_B)

    monkeypatch.setattr(step_labels.generate, "verdicts", verdicts)
    bad = fenced("n = 7\nprint(n)")
    data = write(tmp_path / "rows.jsonl", sampler, [(GOOD, True), (bad, False)])
    good, wrong = labels(tmp_path / "run", made, data)
    assert good["steps"] == ["```python\nn = 2", "n += 3", "n += 1", "print(n)\n```"]
    assert good["root"] == wrong["root"] == counts(1, 2, 1)
    # Behind EOS the solution's own verdict.
    assert good["mc"] == [counts(1, 2, 1), counts(2, 2), counts(2, 2), counts(1, 0)]
    assert wrong["mc"] == [counts(0, 4), None] and good["step_split"] == "program"
    wanted = [prefix + one.removesuffix(CUT) for prefix, some in REPLIES.items() for one in some]
    assert sorted(seen) == sorted(wanted)


def test_killed_at_any_call_labelling_goes_on_to_the_same_bytes(
    made: dict[str, Any], sampler: Scripted, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", sampler, [(GOOD, True)])
    labels(tmp_path / "whole", made, data)
    names = ("rows.jsonl", STORE_FILE)
    whole = [(tmp_path / "whole" / "labels" / name).read_bytes() for name in names]
    calls = list(sampler.calls)
    for fail_at in range(1, len(calls)):
        sampler.calls, sampler.fail_at = [], fail_at
        workdir = tmp_path / f"cut{fail_at}"
        with pytest.raises(KeyboardInterrupt):
            labels(workdir, made, data)
        program_runs.forget()
        labels(workdir, made, data)
        assert sampler.calls == calls
        assert [(workdir / "labels" / name).read_bytes() for name in names] == whole


# --- training and use -----------------------------------------------------------------------------


def config(**changes: Any) -> RunConfig:
    """All stages on random models, which learn from injected errors; step by step."""
    base = small(
        **TASK,
        **{
            "data.problems.style": "program", "data.problems.flawed": 0.4, "records.every": 1,
            "sampling.max_new_tokens": 32, "rl.start": "base", "rl.eval_every": 0,
            "rl.rewards.intrinsic_weight": 0.0, "checkpoint.every": 1, **changes,
        },
    )  # fmt: skip
    stages = {
        "pretrain": base.plan["pretrain"],
        "traces": TraceSettings(problems=4, samples=2, batch=8),
        "labels": StepLabelSettings(
            data="traces", n=2, batch=8, step_split="program", truncated_as="wrong"
        ),
        "wrong": InjectedSettings(problems=48, step_split="program"),
        "prm": PRMSettings(
            data="wrong", also="labels", steps=2, batch_size=8, max_length=160,
            validation_share=0.3, step_format=StepSettings(split="program"),
        ),
        "errors": InjectedSettings(split="test", problems=12, step_split="program"),
        "bench": StepBenchSettings(reward_model="prm", data="errors"),
        "rl": dataclasses.replace(
            base.plan["rl"], process=ProcessSettings(reward_model="prm", form="min_form")
        ),
        "solve": SolveSettings(reward_model="prm", problems=4, attempts=4, batch=4, plain=False),
        "beam": SolveSettings(
            reward_model="prm", problems=4, attempts=4, batch=4, search="beam", width=2,
            max_steps=3, selector="weighted",
        ),
    }  # fmt: skip
    return dataclasses.replace(base, plan=stages, stages=tuple(stages))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    workdir = tmp_path_factory.mktemp("programs") / "run"
    runner.run(config(), workdir)
    yield workdir


def test_injected_errors_make_right_programs_wrong(whole: Path) -> None:
    found = read(whole / "wrong" / "rows.jsonl")
    run = Run(config(), whole)
    problems = {one.question: one for one in run.data.problems("train").problems}
    texts = ["".join(row["steps"]) for row in found]
    judged = run.data.task.judge([problems[row["problem"]] for row in found], texts, None)  # type: ignore[arg-type]
    run.data.task.close()
    assert judged.right_B.tolist() == [row["label"] == -1 for row in found]
    # Of the data's own solutions those that are wrong make no row.
    assert 24 < len(found) < 48 and 8 < sum(row["label"] >= 0 for row in found)
    for row, text in zip(found, texts, strict=True):
        solution = problems[row["problem"]].solution
        assert (text == solution) == (row["label"] == -1)
        assert row["steps"] == steps.split_text(text, Format("program"))


def test_the_reward_model_says_how_it_reads_steps(whole: Path, tmp_path: Path) -> None:
    about = whole / "prm" / "reward_model" / "prm_config.json"
    assert json.loads(about.read_text())["step_split"] == "program"
    scorer = process_scorer.load(Run(config(), whole), "prm")
    assert scorer.how == Format("program")
    text = GOOD + "\n"
    ids = scorer.tokenizer.encode(text, add_special_tokens=False)
    (found,) = scorer.score([[1, 2]], [ids])
    assert len(found) == 4
    # A run of another task, or a split that this version does not know.
    other = {"task": "text", "data.problems.style": "full"}
    with pytest.raises(ConfigError, match=r"step_split=program with task=text; wanted: task=prog"):
        process_scorer.load(Run(small(**other), tmp_path / "other"), str(whole / "prm"))
    copied = copy_stages(whole, tmp_path / "run", "pretrain", "prm")
    unknown = copied / "prm" / "reward_model" / "prm_config.json"
    unknown.write_text(about.read_text().replace('"program"', '"page"'))
    with pytest.raises(CheckpointError, match="step_split='page'; wanted: one of text, program"):
        process_scorer.load(Run(config(), copied), "prm")


def test_rows_that_are_cut_in_another_way_are_refused(whole: Path, tmp_path: Path) -> None:
    workdir = copy_stages(whole, tmp_path / "run", "pretrain", "traces", "labels", "wrong", "prm")
    made = config()
    prm = dataclasses.replace(made.plan["prm"], step_format=StepSettings())
    text = dataclasses.replace(made, plan={**made.plan, "prm2": prm}, stages=("prm2",))
    with pytest.raises(ConfigError, match="step_split=program with prm2.step_format.split=text"):
        runner.run(text, workdir)
    lines = InjectedSettings(split="test", problems=12)
    bench = dataclasses.replace(made.plan["bench"], data="lines")
    stages = {**made.plan, "lines": lines, "bench2": bench}
    mixed = dataclasses.replace(made, plan=stages, stages=("lines", "bench2"))
    with pytest.raises(ConfigError, match="step_split=text with the reward model's step_split="):
        runner.run(mixed, workdir)


def test_every_reader_counts_the_steps_of_programs(whole: Path) -> None:
    bench = json.loads((whole / "bench" / SCORES_FILE).read_text())
    errors = {row["problem"]: row for row in read(whole / "errors" / "rows.jsonl")}
    assert bench["too_long"] == 0 and len(bench["results"]) == len(errors) > 6
    for row in bench["results"]:
        assert len(row["scores"]) == len(errors[row["question"]]["steps"])
    # Random models write no fence: an answer is one step, and a beam ends with its solution.
    assert rows(whole, "rl")[-1]["process/steps"] == pytest.approx(1.0, abs=0.2)
    solved = json.loads((whole / "solve" / "results.json").read_text())
    for row in solved["results"]:
        for one in row["candidates"]:
            assert len(one["steps"]) == len(steps.split_text(one["text"], Format("program")))


# Stage -> what raises at its n-th call, in place of the process's end.
BREAKS: dict[str, tuple[type, str, int]] = {
    "prm": (LabelledRows, "batch", 2),
    "rl": (RLStep, "__call__", 2),
    "solve": (AnswerStore, "add", 3),
    "beam": (AnswerStore, "add", 5),
}


@pytest.mark.parametrize("stage", BREAKS)
def test_broken_off_each_stage_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    others = [name for name in config().plan if name != stage]
    workdir = copy_stages(whole, tmp_path / stage, *others)
    how = dataclasses.replace(config(), stages=(stage,))
    kind, method, number = BREAKS[stage]
    real, calls = getattr(kind, method), []

    def breaks(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, breaks)
        with pytest.raises(KeyboardInterrupt):
            runner.run(how, workdir)
    program_runs.forget()
    runner.run(how, workdir)
    for name in ("completions.jsonl", "answers.jsonl", "reward_model/model.safetensors"):
        if (whole / stage / name).exists():
            assert (workdir / stage / name).read_bytes() == (whole / stage / name).read_bytes()
    if stage in ("rl", "prm"):
        assert rows(workdir, stage) == rows(whole, stage)
