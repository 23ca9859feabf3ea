"""Stage solve of task program: evidence of the sandbox, the control, prompts without gold."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_jax.data.fences import fenced
from distill_jax.report import run_data, run_report
from distill_jax.run.config import RunConfig
from distill_jax.stages import runner
from distill_jax.tasks import ProgramSettings
from tests.evaluation.scripted import CUT, Scripted
from tests.evaluation.test_solver import is_review
from tests.stages import solving
from tests.stages.reasoned import untimed
from tests.stages.solving import GOLDS, Setup, Stop, results, stopping

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="of Linux: /proc, seccomp"),
]

# What is wrong with a program, as `{}` would be right.
FAILURES = [
    "x = {}\nassert x < 0, 'no'\nprint(x)", "print(1 / 0)", "x = {}", "print(None)", "print({}",
    "import os\nprint({})",
]  # fmt: skip


def say(prompt: str, number: int, attempt: int, key: int) -> str:
    """Programs that are right, wrong or fail, and verdicts, by the draw's numbers alone."""
    value = (number * 31 + attempt * 7 + key + len(prompt)) % 11
    if is_review(prompt, "verify"):
        return f"VERDICT: {('correct', 'incorrect', 'unsure', 'x')[value % 4]}"
    found = re.search(r"test box (\d)", prompt)
    gold = GOLDS[int(found[1]) if found else 0]
    # The third gold number is in no candidate, so no prompt may hold it.
    answer = gold if value % 3 == 0 and gold != GOLDS[2] else str(value % 3)
    if value % 4 == 0:
        return f"```python\nprint({answer}){CUT}"
    forms = ["print({})", "print(1)\nprint({})", *FAILURES]
    return f"Hm?\n{fenced(forms[value % len(forms)].format(answer))}"


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("setup"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    monkeypatch.setattr(solving, "say", say)
    return solving.scripted(monkeypatch)


def everything(setup: Setup, **changes: Any) -> RunConfig:
    config = setup.everything(**changes)
    # Programs on a busy machine must not run out of time.
    limits = ProgramSettings(instruction="Program it.", wall_s=30.0, cpu_s=30.0)
    return dataclasses.replace(config, task="program", programs=limits)


def test_evidence_revisions_and_figures(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(everything(setup), tmp_path)
    found = results(tmp_path)
    revision = found["revision"]
    assert set(revision["kinds"]) >= {"crash", "no_program", "truncated", "assertion"}
    assert revision["triggered"] >= revision["revised"] > 0
    assert revision["fixed"] + revision["broken"] + revision["unchanged"] == revision["triggered"]
    control = revision["resampled"]
    assert control["samples"] > 0 and control["tokens"] >= revision["tokens"] > 0
    first, kept = (found["task_figures"][name]["programs"] for name in ("first", "kept"))
    assert first["failures"].keys() >= {"syntax", "assertion", "no_program:unterminated"}
    assert sum(first["failures"].values()) >= sum(kept["failures"].values())
    # A passing program was not replaced by a failing one.
    for row in found["results"]:
        of = {(c["agent"], c["attempt"], c["round"]): c for c in row["candidates"]}
        names = found["agents"]
        for one in row["revisions"]:
            if one["kept"]:
                old = of[names[one["slot"][0]], one["slot"][1], one["old"]]
                new = of[names[one["slot"][0]], one["slot"][1], one["round"]]
                assert new["details"]["ran"] or not old["details"]["ran"]
    text = (tmp_path / "report.md").read_text()
    for part in ("new samples instead", "| crash | ", "programs, percent of candidates"):
        assert part in text


def test_no_prompt_holds_the_gold_answer(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(everything(setup), tmp_path)
    prompts = scripted[0].prompts
    reviews = [p for p in prompts if is_review(p, "revise")]
    assert len(reviews) > 3 and any("<evidence>" in p for p in reviews)
    assert not any(GOLDS[2] in prompt for prompt in prompts)
    # A gold number that a program states may only be in the reviews of that candidate: neither the
    # evidence nor the reasons state another candidate's answer.
    assert not any(gold in p for p in prompts for gold in GOLDS if "solution>" not in p)
    texts = {c["text"] for row in results(tmp_path)["results"] for c in row["candidates"]}
    for prompt in prompts:
        for gold in [gold for gold in GOLDS if gold in prompt]:
            quoted = prompt.split("<solution>\n")[1].split("\n</solution>")[0]
            shown = "\n".join(line[2:] for line in quoted.split("\n"))
            assert gold in shown and any(shown in text for text in texts)
            outside = re.sub(r"<(solution|evidence)>\n.*?\n</\1>", "", prompt, flags=re.DOTALL)
            assert gold not in outside


def test_stopped_anywhere_it_goes_on_to_the_same_results(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    config = everything(setup, batch=8)
    runner.run(config, tmp_path / "whole")
    wanted = untimed(results(tmp_path / "whole"))
    stored = (tmp_path / "whole" / "solve" / "answers.jsonl").read_bytes()
    draws = [line.split(b'"')[3].split()[0] for line in stored.splitlines()[1:]]
    for stop in (1, draws.index(b"revise") + 1, draws.index(b"resample") + 1):
        workdir = tmp_path / str(stop)
        with stopping(stop) as batches:
            with pytest.raises(Stop):
                runner.run(config, workdir)
            runner.run(config, workdir)
        assert len(batches) == len(draws) and untimed(results(workdir)) == wanted
        assert (workdir / "solve" / "answers.jsonl").read_bytes() == stored


def test_results_of_an_earlier_version_are_still_shown(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(everything(setup, plain=False), tmp_path)
    data = run_data.read(tmp_path)
    found = dict(data.solved["solve"])
    assert found["revision"]["resampled"] is None
    del found["task_figures"]
    found["revision"] = {"revised": 1, "fixed": 1, "broken": 0}
    old = dataclasses.replace(data, solved={"solve": found})
    assert any(s.id == "solve-solve" for s in run_report.build(old).sections)
