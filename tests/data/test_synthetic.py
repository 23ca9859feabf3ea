import re
from collections import Counter

import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.core.settings import build
from distill_jax.data import synthetic
from distill_jax.data.problem import content_hash, overlap
from distill_jax.data.synthetic import ProblemSettings, problem, problems, split_of, texts

SETTINGS = ProblemSettings()
FULL = ProblemSettings(style="full")
ANNOTATION = re.compile(r"<<(\d+)([+-])(\d+)=(\d+)>>")


def retold(question: str) -> list[int]:
    """The values of a story, worked out from its words alone (slow oracle)."""
    start = int(re.match(r"\w+ has (\d+) ", question)[1])
    values = [start]
    for verb, operand in re.findall(r"(\w+) (\d+)", question):
        if verb in synthetic.VERBS["+"]:
            values.append(values[-1] + int(operand))
        elif verb in synthetic.VERBS["-"]:
            values.append(values[-1] - int(operand))
    return values


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["brief", "full"])
@pytest.mark.parametrize("split", synthetic.SPLITS)
def test_every_solution_is_right(settings, split):
    for one in problems(split, 500, settings, seed=3):
        steps = ANNOTATION.findall(one.solution)
        values = retold(one.question)
        assert len(steps) == one.level == len(values) - 1
        for (left, sign, right, result), before, after in zip(
            steps, values, values[1:], strict=False
        ):
            worked = int(left) + int(right) if sign == "+" else int(left) - int(right)
            assert (int(left), worked, int(result)) == (before, after, after)
            assert 1 <= int(right) <= settings.max_operand
        assert all(0 <= value <= settings.max_value for value in values)
        assert one.answer == str(values[-1])
        assert one.solution.splitlines()[-1] == f"#### {one.answer}"


def test_the_two_styles_by_hand():
    brief, full = (problem("train", 1, s, seed=0) for s in (SETTINGS, FULL))
    # Index 1 is of level 2: a start value and two steps, the same story in both styles.
    assert (
        brief.question
        == full.question
        == ("Ann has 6 cards, sells 2 and gets 5. How many cards now?")
    )
    assert brief.solution == "<<6-2=4>>\n<<4+5=9>>\n#### 9"
    assert full.solution == ("Ann has 6-2=<<6-2=4>>4 cards.\nAnn has 4+5=<<4+5=9>>9 cards.\n#### 9")
    assert brief.extra["chain"] == "6-2+5"


def test_splits_share_no_chain_and_no_question_whatever_the_seed():
    rows = {
        split: [p for seed in (0, 1) for p in problems(split, 2000, SETTINGS, seed)]
        for split in synthetic.SPLITS
    }
    for split, found in rows.items():
        assert all(split_of(p.extra["chain"]) == split for p in found)
        for other in synthetic.SPLITS:
            if other != split:
                assert not overlap(rows[other], found)
                chains = {p.extra["chain"] for p in rows[other]}
                assert not chains & {p.extra["chain"] for p in found}


def test_shares_of_the_splits():
    # 10,000 chains: a tenth is 1,000, standard deviation √(10⁴·.1·.9) = 30; five of them are 150.
    shares = Counter(split_of(f"{start}+{step}") for start in range(100) for step in range(100))
    assert abs(shares["validation"] - 1000) < 150 and abs(shares["test"] - 1000) < 150
    assert shares["train"] == 10_000 - shares["validation"] - shares["test"]


def test_levels_are_balanced_and_questions_distinct():
    found = problems("test", 503, SETTINGS, seed=0)
    assert Counter(p.level for p in found) == {1: 101, 2: 101, 3: 101, 4: 100, 5: 100}
    assert len({p.content_hash for p in found}) == len({p.id for p in found}) == 503


def test_a_problem_is_a_function_of_its_arguments():
    assert problem("train", 7, SETTINGS, 0) == problem("train", 7, SETTINGS, 0)
    variants = [("test", 7, 0), ("train", 8, 0), ("train", 7, 1), ("train", 7, 0)]
    assert len({problem(s, i, SETTINGS, seed).question for s, i, seed in variants}) == 4
    assert problems("train", 20, SETTINGS, 0) == problems("train", 40, SETTINGS, 0)[:20]


def test_there_are_more_than_a_hundred_thousand_problems():
    # Birthday estimate: n draws with c colliding pairs come from about n²/(2c) problems. Level 1
    # is the narrowest: 49 starts × about 17 steps × 64 names and things × 12 verbs and endings,
    # four fifths of them for training: about 500,000. 3,000 draws then collide about 9 times.
    settings = ProblemSettings(levels=1)
    hashes = Counter(
        content_hash(problem("train", index, settings, 0).question) for index in range(3000)
    )
    pairs = sum(count * (count - 1) // 2 for count in hashes.values())
    assert 3000**2 / 2 / max(pairs, 1) > 100_000


def test_values_and_operands_obey_other_settings():
    settings = ProblemSettings(max_value=99, max_operand=20, operations=("-",), levels=3)
    found = [ANNOTATION.findall(p.solution) for p in problems("train", 300, settings, 0)]
    assert {sign for steps in found for _, sign, _, _ in steps} == {"-"}
    assert max(int(right) for steps in found for _, _, right, _ in steps) == 20
    assert max(int(left) for steps in found for left, _, _, _ in steps) > 50


@pytest.mark.parametrize(
    "values",
    [
        {"operations": ()},
        {"operations": ("*",)},
        {"levels": 0},
        {"style": "long"},
        {"operations": ("-",), "levels": 9, "max_value": 9},
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        build(ProblemSettings, values)


def test_too_narrow_settings_say_so_instead_of_searching_for_ever():
    narrow = ProblemSettings(levels=1, max_value=4, max_operand=1)
    with pytest.raises(ConfigError, match="distinct"):
        problems("train", 10_000, narrow, 0)


def test_texts_come_from_training_problems_only():
    rows = [problem("train", index, SETTINGS, 5) for index in range(10)]
    assert texts(SETTINGS, 5, 10) == [t for p in rows for t in (p.question, p.solution)]
