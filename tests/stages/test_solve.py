"""Stage solve: what it writes, going on after a stop, prompts without gold, bad input."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError, TokenizerMismatchError
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.forecast import limits
from distill_jax.inference.process_scorer import ProcessScorer
from distill_jax.inference.store import AnswerStore
from distill_jax.models import hf_io, reward_model_io
from distill_jax.models.reward_model_io import PRMConfig
from distill_jax.report import run_data, run_report
from distill_jax.run.config import RunConfig
from distill_jax.run.models import Models
from distill_jax.run.run import Run
from distill_jax.stages import checks, runner, solve
from distill_jax.training.records import is_timing
from tests.evaluation.scripted import CUT, ByStep, Scripted
from tests.evaluation.test_solver import AGENTS, is_review
from tests.stages.hf import tokenizer, write_model
from tests.stages.small import small

pytestmark = pytest.mark.slow

SCORER_OF = solve.scorer_of
# No question, system message or template holds such a number.
GOLDS = ["7081953", "6620417", "9335702", "5518264"]


class Setup:
    """Random models, problems in files, agents, a directory that stands for a reward model."""

    def __init__(self, root: Path):
        self.root, tok = root, tokenizer()
        for role, seed in (("teacher", 1), ("student", 0)):
            more = {"max_position_embeddings": 2048}
            write_model(root / role, rows=320, tok=tok, seed=seed, noise=0.5, **more)
        for split, count in (("train", 24), ("validation", 3), ("test", len(GOLDS))):
            golds = GOLDS if split == "test" else ["3"] * count
            texts = [f"The {split} box {i} holds 2 pens. How many?" for i in range(count)]
            rows = [{"question": q, "answer": a} for q, a in zip(texts, golds, strict=True)]
            (root / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        rows = [dataclasses.asdict(agent) for agent in AGENTS]
        (root / "agents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (root / "reward").mkdir()
        (root / "reward" / "config.json").write_text("{}")

    def search(self, **changes: Any) -> RunConfig:
        given = {
            "reward_model": str(self.root / "reward"), "attempts": 4, "width": 2, "search": "beam",
            "max_steps": 4, "selector": "weighted", "sampling__max_new_tokens": 64,
        }  # fmt: skip
        return self.config(**{**given, **changes})

    def config(self, *stages: str, **changes: Any) -> RunConfig:
        shared = {name: value for name, value in changes.items() if "__" in name}
        own = {name: value for name, value in changes.items() if "__" not in name}
        paths = {f"{role}__path": str(self.root / role) for role in ("teacher", "student")}
        config = small(
            stages=("evaluate",), data__source=str(self.root),
            sampling__segment=3, evaluate__teacher=False, evaluate__distribution=False,
            report__problems=0,
            **{"data__max_prompt_tokens": 80, "sampling__max_new_tokens": 6, **shared, **paths},
        )  # fmt: skip
        plan = {**config.plan, "solve": SolveSettings(**own)}
        return dataclasses.replace(config, plan=plan, stages=stages or ("solve",))

    def everything(self, **changes: Any) -> RunConfig:
        given = {
            "reward_model": str(self.root / "reward"), "agents": str(self.root / "agents.jsonl"),
            "attempts": 3, "verify": 2, "rounds": 2, "selector": "weighted_verdict",
        }  # fmt: skip
        return self.config(**{**given, **changes})


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("setup"))


def say(prompt: str, number: int, attempt: int, key: int) -> str:
    """Right and wrong answers, revisions, verdicts, cut texts: by the draw's numbers alone."""
    value = (number * 31 + attempt * 7 + key + len(prompt)) % 11
    if is_review(prompt, "verify"):
        return f"Hm.\nVERDICT: {('correct', 'incorrect', 'unsure', 'x')[value % 4]}"
    found = re.search(r"test box (\d)", prompt)
    gold = GOLDS[int(found[1]) if found else 0]
    # The third gold number is in no candidate, so no prompt may hold it.
    answer = gold if value % 3 == 0 and gold != GOLDS[2] else str(value % 3)
    return f"{'?' if value % 2 else ''} {value}" + (f"\n#### {answer}" if value % 4 else CUT)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    """Each sampler that the stage makes; none of them decodes."""
    made: list[Scripted] = []

    def sampler(self: Models, model: Any, tok: Any = None) -> Scripted:
        made.append(Scripted(self.data.tokenizer, say))
        made[-1].weights = lambda params, limits: None
        return made[-1]

    monkeypatch.setattr(Models, "sampler", sampler)
    monkeypatch.setattr(solve, "scorer_of", lambda run, settings: ByStep(run.data.tokenizer))
    return made


def results(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "solve" / "results.json").read_text())


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: untimed(one) for name, one in value.items() if not is_timing(name)}
    return [untimed(one) for one in value] if isinstance(value, list) else value


def test_the_default_agent_draws_what_stage_evaluate_samples(setup: Setup, tmp_path: Path) -> None:
    config = setup.config("evaluate", "solve", evaluate__samples=2, attempts=2, plain=True)
    runner.run(config, tmp_path)
    evaluated = json.loads((tmp_path / "evaluate" / "base.json").read_text())
    found = results(tmp_path)
    assert [row["all_solutions"] for row in found["results"]] == [
        problem["sampled"] for problem in evaluated["problems"]
    ]
    assert len({text for row in found["results"] for text in row["all_solutions"]}) > 4
    # One agent at equal tokens is itself.
    assert found["plain"]["samples"] == 2 and found["plain"]["tokens"] == found["tokens"]["total"]
    assert found["plain"]["difference"]["majority"]["mean"] == 0
    assert found["candidates"] == 2 and found["attempts"] == 2 and found["agents"] == ["default"]
    text = (tmp_path / "report.md").read_text()
    assert "## Candidates and selection (solve)" in text and "| majority | " in text


def test_results_hold_what_others_read_and_more(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(setup.everything(), tmp_path)
    found = results(tmp_path)
    assert found.keys() >= {
        "num_problems", "accuracy", "verification_rate", "answer_rate", "avg_time", "results",
        "verification_precision", "verification_recall", "verification_f1",
    }  # fmt: skip
    assert found["num_problems"] == 4 and found["avg_time"] > 0
    assert list(found["selectors"]) == ["first", "majority", "best", "weighted", "weighted_verdict"]
    assert list(found["curves"]) == ["1", "2", "4", "6"] and found["candidates"] == 6
    # Of k = 1 every selector is pass@1; of all candidates each is the stage's own.
    first, last = found["curves"]["1"], found["curves"]["6"]
    kept = [c["correct"] for row in found["results"] for c in row["candidates"] if c["kept"]]
    for name in ("pass", "best"):
        assert first[name]["mean"] == pytest.approx(np.mean(kept))
    assert last["pass"]["mean"] == found["pass_at_n"]["mean"]
    for name in ("majority", "weighted"):  # best@k averages over candidates of one score
        assert last[name]["mean"] == pytest.approx(found["selectors"][name]["mean"])
    for row in found["results"]:
        assert row.keys() >= {
            "problem", "best_solution", "all_solutions", "num_solutions", "total_time",
            "reference_answer", "correct", "selector", "candidates", "tokens", "pass_at_n",
            "majority_correct",
        }  # fmt: skip
        candidates = row["candidates"]
        assert row["num_solutions"] == len(row["all_solutions"]) == len(candidates) >= 6
        assert sum(one["kept"] for one in candidates) == 6
        chosen = candidates[row["selected"]["weighted_verdict"]]
        assert chosen["kept"] and chosen["text"] == row["best_solution"]
        assert row["correct"] == chosen["correct"] == (chosen["answer"] == row["reference_answer"])
        assert row["tokens"]["total"] == sum(c["tokens"] + c["verdict_tokens"] for c in candidates)
    assert any(row["pass_at_n"] for row in found["results"])
    assert not found["results"][2]["pass_at_n"]  # no candidate says its gold number
    assert found["revision"]["revised"] > 0 and found["plain"]["tokens"] <= found["tokens"]["total"]
    markdown, page = ((tmp_path / f"report.{e}").read_text() for e in ("md", "html"))
    assert "weighted_verdict" in markdown and "pass@N" in markdown
    assert 'class="t t1"' in page and "step 1: 0.900" in page and "votes " in page


def test_no_prompt_holds_the_gold_answer(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(setup.everything(), tmp_path)
    prompts = scripted[0].prompts
    assert sum(is_review(p, "verify") for p in prompts) > 3 < len(prompts)
    assert sum(is_review(p, "revise") for p in prompts) > 3
    assert not any(GOLDS[2] in prompt for prompt in prompts)
    # A gold number that a candidate states may only be in the reviews of that candidate.
    assert not any(gold in p for p in prompts for gold in GOLDS if "solution>" not in p)
    said = {one["text"] for row in results(tmp_path)["results"] for one in row["candidates"]}
    for prompt in prompts:
        if any(gold in prompt for gold in GOLDS):
            quoted = prompt.split("<solution>\n")[1].split("\n</solution>")[0]
            assert "\n".join(line[2:] for line in quoted.split("\n")) in said


class Stop(Exception):
    """Stands for whatever ends the program."""


@pytest.mark.parametrize("how", ["everything", "search"])
def test_stopped_anywhere_it_goes_on_to_the_same_results(
    setup: Setup,
    scripted: list[Scripted],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    made = getattr(setup, how)
    config = made(batch=4)
    runner.run(config, tmp_path / "whole")
    wanted = untimed(results(tmp_path / "whole"))
    stored = (tmp_path / "whole" / "solve" / "answers.jsonl").read_bytes()
    total, add = len(stored.splitlines()) - 1, AnswerStore.add
    assert total == len(scripted[0].calls) > 12
    for stop in (1, 7, total - 1):
        workdir, batches = tmp_path / str(stop), 0

        def counted(self: AnswerStore, batch: Any, stop: int = stop) -> None:
            nonlocal batches
            add(self, batch)
            batches += 1
            if batches == stop:
                raise Stop

        monkeypatch.setattr(AnswerStore, "add", counted)
        with pytest.raises(Stop):
            runner.run(config, workdir)
        assert not (workdir / "solve" / "results.json").exists()
        runner.run(config, workdir)
        assert batches == total  # nothing is drawn twice
        found = results(workdir)
        assert untimed(found) == wanted and found["avg_time"] is None
        assert (workdir / "solve" / "answers.jsonl").read_bytes() == stored
    monkeypatch.setattr(AnswerStore, "add", add)
    runner.run(made(batch=64), tmp_path / "other")
    assert untimed(results(tmp_path / "other")) == wanted
    if how == "search":
        check_search(tmp_path / "other")


def check_search(workdir: Path) -> None:
    """Of a finished search: its counts, plain samples at equal tokens, the report."""
    found = results(workdir)
    assert found["search"]["method"] == "beam" and found["curves"] == {}
    for row in found["results"]:
        assert row["tokens"]["total"] == row["search"]["tokens"] > 0
        assert row["num_solutions"] == sum(one["kept"] for one in row["candidates"]) >= 2
    assert found["plain"]["tokens"] <= found["tokens"]["total"]
    names = ["first", "majority", "best", "weighted"]
    for one in (found, found["plain"]):
        assert list(one["selectors"]) == names and list(one["calibration"]) == [
            "majority",
            "weighted",
        ]
    assert {one["tokens"] for one in found["selectors"].values()} == {found["tokens"]["total"]}
    text = (workdir / "report.md").read_text()
    assert "Search beam, width 2, 4 beams" in text and "one agent at equal tokens" in text
    assert "confidence of weighted: ECE" in text and "of split test (held out)" in text


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ('{"name": "a", "role": "critic"}', "line 1: unknown setting role"),
        ('{"name": "a", "temperature": 0}', "attempts=3 of agent a with temperature 0"),
        ("{", "line 1: not JSON"),
    ],
)
def test_a_wrong_file_of_agents_stops_it_first(
    setup: Setup, tmp_path: Path, agents: str, message: str
) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_text(agents + "\n")
    with pytest.raises((ConfigError, DataError), match=message):
        checks.prepare(Run(setup.everything(agents=str(path)), tmp_path / "run"))


def test_problems_that_do_not_fit_for_an_agent(setup: Setup, tmp_path: Path) -> None:
    config = setup.everything(data__max_prompt_tokens=35)
    with pytest.raises(DataError, match="prompts are longer than 35 tokens"):
        checks.prepare(Run(config, tmp_path))


def test_no_attempts_and_no_reward_model(setup: Setup, tmp_path: Path) -> None:
    from distill_jax.core.settings import build

    with pytest.raises(ConfigError, match="solve.attempts=0; wanted: at least 1"):
        build(SolveSettings, {"attempts": 0}, "solve.")
    with pytest.raises(ConfigError, match="a stage of the plan that makes a reward_model"):
        setup.config(reward_model="nowhere")
    for nothing in ("nowhere.jsonl", "./nowhere.jsonl", "evaluate"):  # no stage makes agents
        config = setup.config("evaluate", "solve", agents=nothing)
        with pytest.raises(DataError, match="no file of agents .*; wanted: a .json or .jsonl"):
            checks.prepare(Run(config, tmp_path))


@pytest.mark.parametrize(
    ("error", "steps"),
    [(DataError, np.float32("nan")), (TokenizerMismatchError, None)],
)
def test_a_reward_model_that_cannot_be_used_stops_it(
    setup: Setup,
    scripted: list[Scripted],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    steps: Any,
) -> None:
    def scorer(run: Run, settings: SolveSettings) -> ByStep:
        if steps is None:
            raise TokenizerMismatchError("the reward model's tokenizer differs")
        found = ByStep(run.data.tokenizer)
        found.score = lambda prompts, completions: [np.array([steps])] * len(completions)
        return found

    monkeypatch.setattr(solve, "scorer_of", scorer)
    with pytest.raises(error):
        runner.run(setup.everything(), tmp_path)
    assert not (tmp_path / "solve" / "results.json").exists()


def write_reward_model(setup: Setup, path: Path, tok: Any, system: str | None) -> Path:
    geometry, base = hf_io.load_hf(setup.root / "student")
    shape, kept = reward_model_io.trunk(geometry, base)
    drawn = np.random.default_rng(0).standard_normal((2, shape.hidden_size)).astype(np.float32)
    score, about = (
        {"weight": drawn, "bias": np.zeros(2, np.float32)},
        PRMConfig(system_prompt=system),
    )
    reward_model_io.save(path, shape, kept, score, about, tokenizer=tok)
    return path


def test_a_real_reward_model_scores_with_its_own_system_message(
    setup: Setup, scripted: list[Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "scorer_of", SCORER_OF)
    path = write_reward_model(setup, tmp_path / "prm", tokenizer(), "Judge it.")
    config = setup.config(reward_model=str(path), attempts=2, selector="weighted", plain=False)
    read, score = [], ProcessScorer.score

    def noted(self: ProcessScorer, prompts: Any, completions: Any) -> Any:
        read.extend(self.tokenizer.decode(one) for one in prompts)
        return score(self, prompts, completions)

    monkeypatch.setattr(ProcessScorer, "score", noted)
    runner.run(config, tmp_path / "run")
    found = results(tmp_path / "run")
    scores = [step for row in found["results"] for c in row["candidates"] for step in c["steps"]]
    assert len(scores) > 8 and np.ptp(scores) > 0.01 and found["unscored_steps"] == 0
    assert len(read) == 8 and all("Judge it." in one for one in read)
    assert not any("Judge it." in one for one in scripted[0].prompts)


def test_a_reward_model_of_another_tokenizer_is_refused(
    setup: Setup, scripted: list[Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "scorer_of", SCORER_OF)
    path = write_reward_model(setup, tmp_path / "prm", tokenizer(seed=5), None)
    with pytest.raises(TokenizerMismatchError, match="reward model"):
        runner.run(setup.config(reward_model=str(path), selector="weighted"), tmp_path / "run")
    assert scripted[0].calls == []  # before anything is drawn


def test_changed_agents_are_refused_when_it_is_complete(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_text('{"name": "a"}\n')
    config = setup.config(agents=str(path), attempts=1)
    runner.run(config, tmp_path / "run")
    runner.run(config, tmp_path / "run")  # complete: skipped
    assert len(scripted) == 1
    path.write_text('{"name": "b"}\n')
    with pytest.raises(ConfigError, match="changed since .*agents"):
        runner.run(config, tmp_path / "run")


def test_more_candidates_than_a_device_holds_are_refused_before_any_stage_begins(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def prepared(**changes: Any) -> None:
        agents = str(setup.root / "agents.jsonl")
        config = setup.config("evaluate", "solve", agents=agents, batch=8, **changes)
        checks.prepare(Run(config, tmp_path))

    # 1024 candidates: 2 heads of 8 in one layer, keys and values, 128 + 6 slots: 17.6 MB of cache;
    # logits of 320 tokens twice: 2.6 MB.
    monkeypatch.setattr(limits, "device_limit", lambda: 4 * 10**6)
    prepared(attempts=4)
    with pytest.raises(ConfigError, match="stage solve is forecast .* at 1024 candidates: dec"):
        prepared(attempts=1024)
    monkeypatch.setattr(limits, "device_limit", lambda: 15 * 10**6)
    capfd.readouterr()
    prepared(attempts=1024)
    assert "WARNING: stage solve is forecast to need 0.02" in capfd.readouterr().err
    # The host keeps all: 4 problems × 2 agents × 4 attempts × (drawn and plain), of 6 tokens of
    # 45 bytes each.
    assert "may keep" not in capfd.readouterr().err
    monkeypatch.setattr(limits, "host_bytes", lambda: 17_279)
    prepared(attempts=4)
    assert "may keep 64 completions of 6 tokens" in capfd.readouterr().err
    monkeypatch.setattr(limits, "host_bytes", lambda: 17_280)
    prepared(attempts=4)
    assert "may keep" not in capfd.readouterr().err
    assert not (tmp_path / "evaluate").exists() and not (tmp_path / "solve").exists()


def test_a_report_without_such_a_stage_has_no_such_section(
    setup: Setup, scripted: list[Scripted], tmp_path: Path
) -> None:
    runner.run(setup.config(attempts=1, plain=False), tmp_path)
    data = run_data.read(tmp_path)
    ids = [section.id for section in run_report.build(data).sections]
    assert "solve-solve" in ids and results(tmp_path)["plain"] is None
    bare = dataclasses.replace(data, solved={})
    assert not any(s.id.startswith("solve") for s in run_report.build(bare).sections)
