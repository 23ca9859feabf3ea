"""Stage injected: which step is made wrong, and that the others stay as they were."""

import dataclasses
import json
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError, DataError
from distill_jax.reasoning.steps import Format
from distill_jax.run.run import Run
from distill_jax.stages import injected, runner
from distill_jax.stages.injected import InjectedSettings, inject
from distill_jax.stages.step_bench import first_label, read
from tests.stages.small import small

STEPS = ["<<45-2=43>>", "so it goes", "#### 43"]


def test_one_number_of_one_step_differs():
    seen = set()
    for seed in range(40):
        made = inject(STEPS, np.random.default_rng(seed))
        assert made is not None
        found, place = made
        assert [i for i in range(3) if found[i] != STEPS[i]] == [place] and place != 1
        before, after = (re.findall(r"\d+", text)[-1] for text in (STEPS[place], found[place]))
        assert 1 <= abs(int(before) - int(after)) <= 9
        assert re.sub(r"\d+(?=\D*$)", "N", found[place]) == re.sub(
            r"\d+(?=\D*$)", "N", STEPS[place]
        )
        seen.add(place)
    assert seen == {0, 2}
    assert inject(["no", "number"], np.random.default_rng(0)) is None


@pytest.mark.parametrize("text", ["3.10", "3.1", "1,005", "1,999.90", "0.05"])
def test_a_number_is_changed_whole(text: str):
    value = Decimal(text.replace(",", ""))
    for seed in range(30):
        found = inject([f"= {text}"], np.random.default_rng(seed))
        assert found is not None
        change = abs(Decimal(found[0][0].removeprefix("= ")) - value)
        assert change == int(change) and 1 <= change <= 9


def test_no_result_below_0():
    for seed in range(30):
        found = inject(["= 3"], np.random.default_rng(seed))
        assert found is not None and int(found[0][0].split()[-1]) >= 0


@pytest.mark.parametrize("form", injected.FORMS)
def test_rows(tmp_path: Path, form: str):
    base = small()
    settings = InjectedSettings(problems=20, form=form)
    config = dataclasses.replace(base, plan={"injected": settings}, stages=("injected",))
    config = dataclasses.replace(
        config, plan={"pretrain": base.plan["pretrain"], "injected": settings}
    )
    runner.run(config, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "injected" / "rows.jsonl").read_text().splitlines()]
    with Run(config, tmp_path) as run:
        train = {p.question: p.solution for p in run.data.problems("train").problems[:20]}
        if form == "pairs":
            assert [row["chosen"] for row in lines] == list(train.values())
            assert all(row["chosen"] != row["rejected"] for row in lines)
            return
        labels = [row["label"] for row in lines]
        assert len(lines) == 20 and 4 < sum(label >= 0 for label in labels) < 16
        for row in lines:
            same = "\n".join(row["steps"]) == train[row["problem"]]
            assert same == (row["label"] == -1)
            # The tokens of the text as a model writes it: "\n" is no token of its own there.
            text = run.data.tokenizer("\n".join(row["steps"]), add_special_tokens=False)
            assert sum(row["step_tokens"], []) == text["input_ids"]
            assert len(row["step_tokens"]) == len(row["steps"])
        # A token of a space and the whole next step: the tokens would be of fewer steps.
        spaces = Format(separator=" ")
        with pytest.raises(DataError, match="p: 3 steps are 2 as tokens.*set separator"):
            injected._add_tokens(run, [{"id": "p", "steps": ["Tom", "has", "3"]}], spaces)
        half = [{"id": "p", "steps": ["Tom \ud83d", "has 3"]}]
        injected._add_tokens(run, half, Format())
        assert half[0]["steps"] == ["Tom \ud83d", "has 3"] and len(half[0]["step_tokens"]) == 2
        found = read(run, "injected")
        assert [row.tokens for row in found] == [row["step_tokens"] for row in lines]
        assert [first_label(row) for row in found] == labels
        # what follows the first wrong step is not labelled
        wrong = next(row for row in found if first_label(row) == 0 and len(row.steps) > 1)
        assert wrong.labels[0] == 0.0 and set(wrong.labels[1:]) == {None}


def test_refused():
    with pytest.raises(ConfigError, match="share=0.3 with form=pairs"):
        InjectedSettings(form="pairs", share=0.3)
    with pytest.raises(ConfigError, match="separator is empty"):
        InjectedSettings(separator="")
