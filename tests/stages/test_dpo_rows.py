"""Stage dpo: the pairs that it learns on, and the settings that it refuses."""

from pathlib import Path
from typing import Any

import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.run.run import Run
from distill_jax.stages import runner
from distill_jax.stages.dpo_rows import PairRows
from distill_jax.stages.dpo_settings import DPOSettings
from tests.stages.small import copy_stages
from tests.stages.test_dpo import config, given, write

pytestmark = pytest.mark.slow


def rows_of(workdir: Path, path: Path, **changes: Any) -> PairRows:
    run = Run(config(path, **changes), workdir)
    return PairRows(run, run.stage("dpo"))


def test_pairs_that_teach_nothing_are_counted(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, *others = given(4)
    others[0]["rejected"] = " \n"
    others[1]["chosen"] = others[1]["rejected"]
    others[2]["chosen"] += "\nonce more" * 40
    path = tmp_path / "pairs.jsonl"
    data = Run(config(path), begun).data
    # Of a question that evaluation asks, in other letters.
    held_out = [{**good, "prompt": data.separate("test")[0].question.upper()}]
    write(path, [good, *others, *held_out])
    found = rows_of(begun, path)
    assert found.figures == {
        "rows": 5, "dropped_held_out": 1, "dropped_empty": 1, "dropped_identical": 1,
        "dropped_truncated": 1, "pairs": 1,
    }  # fmt: skip
    assert "dpo: rows 5, dropped_held_out 1, dropped_empty 1" in capsys.readouterr().err
    tok = data.tokenizer
    (two,) = found.pairs
    assert tok.decode(two.chosen) == good["chosen"] + tok.eos_token
    assert good["prompt"] in tok.decode(two.prompt) and tok.decode(two.prompt).endswith("\n")
    batch = found.pack([0, 0], found.chosen)
    assert batch["tokens_BCT"].shape[:2] == (2, 2)
    n = len(two.prompt)
    for side, ids in enumerate((two.chosen, two.rejected)):
        assert batch["tokens_BCT"][1, side, : n + len(ids)].tolist() == [*two.prompt, *ids]
        assert batch["targets_BCR"][1, side, : len(ids)].tolist() == ids
        assert batch["loss_mask_BCR"][1, side].sum() == batch["response_len_BC"][1, side]
    # Three steps of four pairs are an epoch: each of twelve pairs once.
    some = rows_of(begun, write(path, given()))
    drawn = [row for step in range(3) for row in some.batch(step, 4)["tokens_BCT"][:, 0]]
    assert len({tuple(row[:40].tolist()) for row in drawn}) == 12
    write(path, [*others, *held_out])
    with pytest.raises(DataError, match="no pair is left of 4"):
        rows_of(begun, path)


def test_most_and_traces(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "pairs.jsonl", given())
    some = rows_of(begun, path, most=5)
    assert some.pairs == rows_of(begun, path, most=5).pairs and len(some.pairs) == 5
    assert [p for p in rows_of(begun, path).pairs if p in some.pairs] == some.pairs
    with pytest.raises(ConfigError, match="dpo.prefer=short with the pairs of"):
        rows_of(begun, path, prefer="short")

    tok = Run(config(path), begun).data.tokenizer
    found = []
    for sample, (text, right) in enumerate([("5\n#### 5", 1), ("6", 0), ("2+3=5\n#### 5", 1)]):
        tokens = [*tok.encode(text, add_special_tokens=False), tok.eos_token_id]
        found.append(
            {"id": "p", "question": "2 + 3?", "answer": "5", "completion": text, "tokens": tokens,
             "ended": True, "right": bool(right), "undecided": False, "sample": sample}
        )  # fmt: skip
    write(path, found)
    both = rows_of(begun, path)
    assert {tuple(two.rejected) for two in both.pairs} == {tuple(found[1]["tokens"])}
    assert sorted(two.chosen for two in both.pairs) == sorted(found[i]["tokens"] for i in (0, 2))
    short = rows_of(begun, path, prefer="short")
    assert [(t.chosen, t.rejected) for t in short.pairs] == [
        (found[0]["tokens"], found[2]["tokens"])
    ]
    assert "set dpo.loss=sigmoid_norm, beta=5, sft_weight=0.2" in capsys.readouterr().err
    for how, wanted in (("right", "right and wrong ones"), ("short", "two right ones")):
        write(path, [found[1]])
        with pytest.raises(DataError, match=f"none of 1 problems .* that ended, {wanted}; fix"):
            rows_of(begun, path, prefer=how)
    write(path, [{**found[0], "tokens": found[1]["tokens"]}])
    with pytest.raises(DataError, match="its tokens are not those of its completion"):
        rows_of(begun, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "dpo"}, "loss='dpo'"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing=0.1 with loss=hinge"),
        ({"label_smoothing": 0.5}, "label_smoothing=0.5"),
        ({"target_margin": 0.5}, "target_margin=0.5 with loss=sigmoid"),
        ({"length_ratio": 2.0}, "length_ratio=2.0 with prefer=right"),
        ({"most_drift": 0.1, "loss": "simpo"}, "most_drift=0.1 with loss=simpo"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DPOSettings(**changes)


def test_settings_that_do_not_fit_the_run(begun: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", given())
    with pytest.raises(ConfigError, match=r"dpo\.data is empty"):
        config(path, data="")
    workdir = copy_stages(begun, tmp_path / "run", "pretrain", "sft")
    with pytest.raises(ConfigError, match=r"dpo\.max_length=100000; wanted: at most the stu"):
        runner.run(config(path, max_length=100_000), workdir)
    with pytest.raises(ConfigError, match="batch_size=4 in accumulate=3"):
        runner.run(config(path, accumulate=3), workdir)
    assert not (workdir / "dpo").exists()
