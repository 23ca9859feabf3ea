"""Stage concise: both sides judged again, floors kept, and stage dpo reads its rows."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import pair_rows
from distill_jax.inference import process_scorer
from distill_jax.reasoning.programs import fenced
from distill_jax.run.config import RunConfig
from distill_jax.run.run import Run
from distill_jax.sandbox import shared
from distill_jax.stages import checks, runner
from distill_jax.stages.concise import ConciseSettings
from distill_jax.stages.dpo_rows import PairRows
from distill_jax.stages.dpo_settings import DPOSettings
from distill_jax.tasks import Judged, ProgramSettings, program_runs
from distill_jax.tasks.task import TextTask
from tests.stages.small import rows
from tests.stages.traced import files, plan

pytestmark = pytest.mark.slow

QUESTION = "Tom has {n} pens, drops 6 and uses 2. How many now?"


@pytest.fixture(autouse=True, scope="module")
def _close():
    yield
    shared.close_shared()
    program_runs.forget()


def trace(n: int, text: str, sample: int, *, right: bool = True, ended: bool = True) -> dict:
    return {
        "id": f"p{n}", "question": QUESTION.format(n=n), "answer": str(n - 8), "completion": text,
        "tokens": [1], "ended": ended, "right": right, "undecided": False, "sample": sample,
        "score": None,
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return files(tmp_path_factory.mktemp("models"), max_position_embeddings=512)


def config(path: Path, made: dict[str, Any], task: str = "text", **changes: Any) -> RunConfig:
    """The plan of stage concise, and for task program of stage dpo after it."""
    stages: dict[str, Any] = {"concise": ConciseSettings(**{"data": str(path), **changes})}
    if task == "program":
        more = {"start": "base", "steps": 2, "batch_size": 2, "max_length": 512}
        stages["dpo"] = DPOSettings(data="concise", **more)
    # The tokenizer of these models is one of texts: programs take many tokens.
    base = plan(stages, records__every=1, **{**made, "sampling__max_new_tokens": 256})
    programs = ProgramSettings(instruction="", wall_s=20.0, cpu_s=2.0)
    return dataclasses.replace(base, task=task, programs=programs)


def make(root: Path, made: dict[str, Any], given: list[dict], **how: Any) -> list[dict]:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    runner.run(config(path, made, **how), root / "run")
    lines = (root / "run" / "concise" / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def figures(root: Path) -> dict[str, Any]:
    return json.loads((root / "run" / "concise" / "done.json").read_text())["figures"]


LONG = "First Tom has 15 pens.\nThen 6 go: 15-6=9.\nThen 2 go: 9-2=7.\n#### 7"
SHORT = "15-6-2=7\n#### 7"


def test_texts(tmp_path: Path, made: dict[str, Any]) -> None:
    given = [
        trace(15, LONG, 0),
        trace(15, SHORT, 1),
        trace(15, "#### 7", 2),  # a guess: never chosen
        trace(15, LONG, 3),  # twice
        trace(15, "15-6-2=8\n#### 8", 4),  # its row says right, and it is wrong
        trace(15, "7\n#### 7", 5, right=False),
        trace(15, "7\n#### 7", 6, ended=False),
        trace(20, "20-8=12\n#### 12", 0),  # alone
    ]
    (row,) = make(tmp_path, made, given)
    tok = Run(config(tmp_path / "traces.jsonl", made), tmp_path / "run").data.tokenizer
    assert row == {
        "prompt": QUESTION.format(n=15), "chosen": SHORT, "rejected": LONG, "id": "p15",
        "len_chosen": len(tok.encode(SHORT)), "len_rejected": len(tok.encode(LONG)),
        "kind": "natural", "level": None,
    }  # fmt: skip
    found = figures(tmp_path)
    assert found["rows"] == 8 and found["pairs"] == found["natural"] == 1
    assert found["no_longer_right"] == 1 and found["dropped_not_right"] == 2
    assert found["dropped_repeated"] == 1 and found["problems_without_pair"] == 1
    assert found["problems"] == 2 and found["stripped"] == 0
    assert found["len_rejected"] == row["len_rejected"] > 1.3 * found["len_chosen"]


def test_questions_of_held_out_splits_are_dropped(tmp_path: Path, made: dict[str, Any]) -> None:
    test = Run(config(tmp_path / "x", made), tmp_path / "run").data.separate("test")[0]
    one = {"question": test.question.upper(), "answer": "7"}
    given = [{**trace(15, text, i), **one} for i, text in enumerate((LONG, SHORT))]
    with pytest.raises(DataError, match="none of 0 problems with right solutions"):
        make(tmp_path, made, given)


CONCISE = "n = 15\nn -= 6\nn -= 2\nassert n >= 0\nprint(n)"
BARE = "n = 15\nn -= 8\nprint(n)"  # 8 = 6 + 2, without an assertion
VERBOSE = """# Tom has 15 pens
first = 15
# he drops 6 of them
second = first - 6
# he uses 2 of them
third = second - 2
assert third >= 0
print(third)"""
NOTED = "# fifteen pens, six dropped, two used\nm = 15\nm -= 6  # dropped\nm -= 2  # used\nprint(m)"
# Its answer is in its docstring.
READS = '"""7 is the answer, as anyone can see."""\nprint(__doc__[0])\nassert 15 - 6 - 2 == 7'


def test_programs(tmp_path: Path, made: dict[str, Any]) -> None:
    """Natural pairs keep the assertions; stripped ones run again; stage dpo reads both kinds."""
    texts = (VERBOSE, CONCISE, BARE, "x = 7\nprint(x)")
    given = [trace(15, fenced(text), i) for i, text in enumerate(texts)]
    given += [trace(15, fenced("print(15 - 6 - 1)"), 9)]  # no longer right
    # NOTED's numbers, 20 - 6 - 2 = 12.
    given += [trace(20, fenced(NOTED.replace("15", "20")), 0), trace(15, fenced(READS), 10)]
    pairs_made = make(tmp_path, made, given, task="program")
    natural = [row for row in pairs_made if row["id"] == "p15"]
    assert [row["rejected"] for row in natural][0] == fenced(VERBOSE)
    # BARE is shorter and lost the assertion; x = 7 is hard-coded.
    assert natural[0]["chosen"] == fenced(CONCISE) and natural[0]["kind"] == "natural"
    (stripped,) = [row for row in pairs_made if row["kind"] == "stripped" and row["id"] == "p20"]
    assert stripped["rejected"] == fenced(NOTED.replace("15", "20"))
    assert stripped["chosen"] == fenced("m = 20\nm -= 6\nm -= 2\nprint(m)")
    found = figures(tmp_path)
    assert found["no_longer_right"] == 1 and found["stripped_not_right"] == 1
    for row in pairs_made:
        assert row["len_rejected"] >= 1.3 * row["len_chosen"]
        assert fenced(READS) != row["chosen"] and "x = 7" not in row["chosen"]
    # As it is, by stage dpo: two steps.
    run = Run(config(tmp_path / "traces.jsonl", made, "program"), tmp_path / "run")
    pairs = pair_rows.read(run.rows("concise"))
    assert [pair.chosen.text for pair in pairs] == [row["chosen"] for row in pairs_made]
    used = PairRows(run, run.stage("dpo")).pairs
    assert [len(p.chosen) - 1 for p in used] == [row["len_chosen"] for row in pairs_made]  # and EOS
    assert [row["step"] for row in rows(tmp_path / "run", "dpo")] == [1, 2]


def test_without_stripping(tmp_path: Path, made: dict[str, Any]) -> None:
    given = [trace(20, fenced(NOTED.replace("15", "20")), 0)]
    with pytest.raises(DataError, match="none of 1 problems with right solutions has two"):
        make(tmp_path, made, given, task="program", stripped=False)


def test_the_chosen_convinces_the_reward_model(
    tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    middle, tok = "15-6-2, so 9-2=7\n#### 7", Run(config(tmp_path / "x", made), tmp_path).data
    score_of = {LONG: [0.1], middle: [0.9, 0.5], SHORT: [0.9, 0.4], "7-0=7\n#### 7": [float("nan")]}

    class Scorer:
        def score(self, prompts: Any, completions: Any) -> list[np.ndarray]:
            assert all(QUESTION.format(n=15) in tok.text(one) for one in prompts)
            return [np.array(score_of[tok.text(one)]) for one in completions]

        def aggregate(self, scores: Any) -> np.ndarray:
            return np.array(
                [np.nanmin(one) if np.isfinite(one).any() else np.nan for one in scores]
            )

    monkeypatch.setattr(process_scorer, "load", lambda *_, **__: Scorer())
    monkeypatch.setattr(checks, "check_reward_model", lambda *_: None)
    monkeypatch.setattr(Run, "reward_model", lambda self, _: tmp_path / "prm")
    monkeypatch.setattr(Run, "digest", lambda self, _: "0")
    given = [trace(15, text, i) for i, text in enumerate(score_of)]
    how = {"reward_model": "./prm", "threshold": 0.5}
    (row,) = make(tmp_path / "a", made, given, **how)
    # SHORT is shorter, and has a step below the threshold; the last one cannot be scored.
    assert (row["chosen"], row["rejected"]) == (middle, LONG)
    assert figures(tmp_path / "a")["doubted"] == 3
    with pytest.raises(DataError, match="none of 1 problems"):
        make(tmp_path / "b", made, given, **{**how, "threshold": 0.6})
    with pytest.raises(ConfigError, match="threshold=0.6 with reward_model=''"):
        ConciseSettings(data="a", threshold=0.6)


def test_judged_in_batches(
    tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def judge(self: TextTask, problems: Any, texts: list[str], ended_B: Any) -> Judged:
        asked.append(len(texts))
        right_B = np.array([p.answer in text for p, text in zip(problems, texts, strict=True)])
        return Judged(right_B, ~right_B, [{} for _ in texts], [None for _ in texts])

    monkeypatch.setattr(TextTask, "judge", judge)
    given = [trace(n, text.replace("7", str(n - 8)), i) for n in (15, 30) for i, text in
             enumerate((LONG, SHORT))]  # fmt: skip
    assert len(make(tmp_path, made, given, batch=3)) == 2 and asked == [3, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"data": ""}, r"concise\.data is empty"), ({"also": "b/c", "data": "b/c"}, "also=b/c, the")],
)
def test_settings_that_do_not_fit(
    made: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(Path("a/b"), made, **changes)
