"""The table in the package's README, cell by cell, and the labelled pairs and texts beside it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from distill_jax.answers import Answer, equivalent, extract, library

HERE = Path(__file__).parent
README = HERE.parents[1] / "distill_jax" / "answers" / "README.md"

# (gold, predicted) by the form's name in the README's table.
RIGHT = {
    "numbers": [("1,000", "1000.0"), ("½", "0.5"), ("1 1/2", "3/2"), ("1e6", "10^6"),
                ("1.2 million", "1200000"), ("five", "5"), (r"1\,000\,000", "1000000"),
                ("two thirds", "2/3"), ("twenty-five", "25"), (r"11,\! 111", "11111"),
                ("025", "25"), ("25", r"\boxed{025}"), ("000", "0"), ("142.0", "142")],
    "rounding": [("1.4142", "√2"), ("0.6666", "2/3"), ("0.6667", "2/3"),
                 (r"x = \frac23 \approx 0.67", "2/3")],
    "floats": [("0.30000000000000004", "0.3"), ("1.4142135623730951", r"\sqrt{2}")],
    "periods": [("0.333…", "1/3"), (r"0.\overline{27}", "3/11")],
    "counted things": [("72 dollars", "72"), ("12 girls", "12 students"), ("18 in total", "18")],
    "units": [("10 cm", "10"), ("1 m", "100 cm"), (r"\$5", "5 dollars"), ("50 cents", r"\$0.50"),
              ("5 cm^2", "5 square centimeters"), ("5 feet 6 inches", "66 inches")],
    "percent": [("5%", "5"), ("25%", "1/4"), ("25%", "0.25"), ("150%", "1.5"), ("12.5%", "12.5")],
    "degrees": [("45°", "45"), (r"45^\circ", "45 degrees")],
    "bases": [("52_8", "52_{8}"), ("52_8", "52")],
    "expressions": [("2(x+1)", "2x+2"), ("√8", "2√2"), ("sin²x+cos²x", "1"), ("1/√2", "√2/2"),
                    ("i²", "-1"), ("2(3)", "6"), (r"\cos 60^\circ", "1/2"),
                    ("3*pi/4", r"\frac{3\pi}4"),
                    (r"\int_0^1 x^2 dx", "1/3"), ("x²", "x^2"), ("1 + 2*I", "1+2i"),
                    (r"\frac{1}{3}\pi r^2 h", r"\frac{\pi r^2 h}{3}"), ("n + 2 m", "2m+n"),
                    (r"\frac{1}{2} b h", r"\frac{bh}{2}"), ("2 w + 2 l", "2(l+w)")],
    "equations": [("x = 5", "5"), ("x = 10/2 = 5", "5"), ("2+3=5", "5"), ("y = 2x+1", "2x-y+1 = 0"),
                  ("y = 2x+1", "2x+1"), ("5 = x", "x=5"),
                  (r"\frac{NO}{BO} = 2", "2")],
    "inequalities": [("x > 5", "(5, ∞)"), ("5 < x", "x > 5"), ("1 ≤ x < 3", "[1,3)"),
                     ("x<1 or x>3", "(-∞,1)∪(3,∞)"), ("|x| < 2", "(-2,2)"), ("x>1, x<3", "(1,3)"),
                     ("x ≠ 0", "(-∞,0)∪(0,∞)")],
    "pairs, tuples, vectors": [("(1, 2)", r"\begin{pmatrix}1\\2\end{pmatrix}"),
                               ("(1, 2)", r"\langle 1,2 \rangle"), ("(x,y)=(1,2)", "(1,2)")],
    "sets": [("{1,2}", "{2,1,1}"), (r"\{1,2\}\cup\{3\}", "{1,2,3}")],
    "bare lists": [("1, 2", "2, 1"), ("1, 2", "{2,1}"), ("1,2", "(1,2)"), ("1,-2", "[-2,1]"),
                   ("x = ±3", "3, -3"), ("x=1 or x=2", "1, 2"), ("[1, 2]", "1, 2"),
                   (r"\pm i", "i, -i"), ("p=5,q=2; p=7,q=2", "(5,2),(7,2)")],
    "hedges": [("5 or 5", "5")],
    "intervals": [("[0,∞)", r"[0, +\infty)"), ("[0,1)∪[1,2]", "[0,2]"),
                  ("Interval(0, oo)", "[0,∞)")],
    "matrices": [("[[1,2],[3,4]]", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
                 ("Matrix([[1, 2], [3, 4]])", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}")],
    "ratios": [("2:3", "2 : 3"), ("2:3", "2/3"), ("V_1:V_2 = 11:21", "11:21")],
    "times of day": [("3:30 PM", "3:30 p.m."), ("3:30", "3:30 PM"), ("15:30", "3:30 pm"),
                     ("noon", "12:00 pm")],
    "multiple choice": [("B", "(B)"), ("B", r"\text{B}"), ("B", "B. 12"), ("B", "(b)"),
                        ("(B) 12", "12")],
    "words": [("Evelyn", r"\text{evelyn}"), ("the tuesday", "Tuesday"), ("yes", "Yes"),
              ("∅", "no solution")],
}  # fmt: skip
WRONG = {
    "numbers": [("24", "25"), ("1e-20", "1e-21"), ("12", "1 2"), ("5", "five hundred"),
                ("11, 111", "11111"), ("025", "2.5"), ("025", "0.25"), ("250", "025")],
    "rounding": [("0.33", "1/3"), ("3.14", "π"), ("3.1416", "3.14159"), ("1.4143", "√2"),
                 ("-1.4142", "√2")],
    "floats": [("0.3000000000001", "0.3")],
    "counted things": [("12 girls", "13 girls")],
    "units": [("10 cm", "10 m"), ("5 cm", "5 cm^2"), ("5 kg", "5 s"), ("3 dollars", "3 euros")],
    "percent": [("5", "500%"), ("25%", "0.3")],
    "degrees": [("90°", "π/2")],
    "bases": [("52_8", "52_9"), ("52_8", "42")],
    "expressions": [("x+1", "x-1"), ("x²+1", "t²+1"), ("√(x²)", "x"), ("1/2004!", "1/2006!"),
                    ("-2^2", "4"), ("2^{200}", "2^{200}+1"), (r"\frac50", "5"),
                    ("n+2", "n + 2 m"), (r"\pi r^2", r"\pi r^2 h"), ("x", "x m")],
    "equations": [("x = 5", "y = 5"), ("x/2 = 5", "5"), ("x/y = x", "x"), ("x", "12 = x"),
                  ("A", "7 = A"), ("5=7", "5"), ("5=7", "7"),
                  ("x=5=7", "5"), ("x=5=7", "7"), ("x+y=5", "5")],
    "inequalities": [("x > 5", "x ≥ 5"), ("x > 5", "5"), ("x > 5", "x < 5"), ("x>1, x<3", "ℝ")],
    "pairs, tuples, vectors": [("(1,2)", "(2,1)"), ("(1,2)", "{1,2}"), ("(1,2)", r"\{1,2\}"),
                               ("(1,2)", "[1,2]")],
    "sets": [("{1,2}", "{1,2,3}")],
    "bare lists": [("2,1", "(1,2)"), ("p=5,q=2; p=7,q=2", "(2,5),(2,7)"),
                   ("p=5,q=2; p=7", "(5,2),7")],
    "hedges": [("5 or 7", "5"), ("5, maybe 7", "5"), ("not 5", "5"), ("5? or so", "7")],
    "intervals": [("[0,1]", "[0,1)")],
    "matrices": [(r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}")],
    "ratios": [("2:3", "3:2"), ("V_1:V_2 = 11:21", "23:21")],
    "times of day": [("3:30 am", "3:30 pm")],
    "multiple choice": [("B", "C"), ("(B) 12", "(B) 13"), ("(B) or (C)", "B")],
    "words": [("even", "odd"), ("yes", "no"), ("Tuesday", "2")],
    "nothing": [("", "5"), (r"\frac{1}{2", "1/2"), (r"\boxed{\frac{1}{2", "1/2"), ("", "")],
}  # fmt: skip
UNDECIDED = {
    "numbers": [("5", "5 squared"), ("36", "3 dozen")],
    "inequalities": [("x>1, y<3", "(1,3)")],
    "percent": [("0.5", "0.5%")],
    "bases": [("52_8", "42_{10}")],
    "expressions": [("f(x)", "f(y)"), ("1/2x", r"\frac{1}{2x}"), (r"\log 100", "2")],
    "intervals": [(r"[1,3]\setminus\{2\}", r"[1,2)\cup(2,3]")],
    "ratios": [("2:3", "4:6")],
    "too large": [("9^{9^{9^9}}", "5"), ("10^{10^{10}}", "5"), ("((9!)!)!", "5"), ("1" * 1001, "5"),
                  (r"\binom{100000000}{50000000}", "5"), ("{" * 60 + "1" + "}" * 60, "5"),
                  ("1" * 401, "5"), ("5^(5^(5^(5^(5^5))))", "5")],
}  # fmt: skip
NEEDS_LIBRARY = pytest.mark.skipif(not library.INSTALLED, reason="needs math-verify")
CASES = [
    pytest.param(
        gold,
        predicted,
        verdict,
        id=f"{form}: {gold[:20]} / {predicted[:20]}",
        marks=[NEEDS_LIBRARY] * library.reads(gold, predicted),
    )
    for verdict, forms in (("right", RIGHT), ("wrong", WRONG), ("undecided", UNDECIDED))
    for form, pairs in forms.items()
    for gold, predicted in pairs
]
# What the labelled pairs ask for and the checker knows that it cannot say; never a false verdict.
KNOWN_UNDECIDED = {
    (r"[1,3]\setminus\{2\}", r"[1,2)\cup(2,3]"),
    (r"[0,1]", r"[0,1]\cup\{2\}"),
    (r"\frac{1}{2}\begin{pmatrix}2&4\\6&8\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
}


def table_forms() -> list[str]:
    lines = README.read_text("utf-8").split("## When two answers are the same")[1].splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    return rows[2:]


@pytest.mark.parametrize(("gold", "predicted", "verdict"), CASES)
def test_cell_of_the_table_either_way_round(gold, predicted, verdict):
    for pair in ((gold, predicted), (predicted, gold)):
        found = equivalent(*pair)
        assert found.verdict == verdict, (pair, found)


def test_every_row_of_the_table_is_tested():
    assert set(table_forms()) == set(RIGHT) | set(WRONG) | set(UNDECIDED)


def test_labelled_pairs():
    rows = [json.loads(line) for line in (HERE / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) > 1000
    counts = Counter(row["label"] for row in rows)
    assert counts["wrong"] + counts["undecided"] > 0.4 * len(rows)
    missed = {}
    for row in rows:
        found = equivalent(row["gold"], row["predicted"])
        assert equivalent(row["predicted"], row["gold"]).verdict == found.verdict, row
        if not library.INSTALLED and library.reads(row["gold"], row["predicted"]):
            assert (found.verdict, found.reason) == ("undecided", library.MISSING)
        elif found.verdict != row["label"]:
            missed[row["gold"], row["predicted"]] = found
    assert {pair for pair, f in missed.items() if f.verdict == "undecided"} == KNOWN_UNDECIDED
    assert {pair: f for pair, f in missed.items() if f.verdict != "undecided"} == {}


TEXTS = [json.loads(line) for line in (HERE / "texts.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("row", TEXTS, ids=lambda row: row["note"][:60])
def test_labelled_texts(row):
    wanted = None if row["answer"] is None else Answer(row["answer"])
    assert extract(row["text"]) == wanted
