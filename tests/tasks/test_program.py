"""Task program: completions and their verdicts by hand, in the real sandbox."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from distill_jax.core.errors import ConfigError
from distill_jax.data import synthetic
from distill_jax.data.chat import ChatSettings
from distill_jax.data.problem import Problem
from distill_jax.data.sources import DataSettings
from distill_jax.data.tokenizer import train_tokenizer
from distill_jax.reasoning.programs import fenced
from distill_jax.sandbox import Limits, SandboxError, pool, shared
from distill_jax.tasks import (
    TASKS,
    ProgramSettings,
    ProgramTask,
    Reply,
    program,
    program_bundles,
    program_check,
    program_runs,
)
from distill_jax.tasks.program import check_program_batch

LIMITS = Limits(wall_s=20.0, cpu_s=1.0)
QUESTION = "Tom has 15 pens, drops 6 and uses 2. How many now?"


@pytest.fixture(autouse=True, scope="module")
def _close():
    yield
    shared.close_shared()
    program_runs.forget()


def check(programs, golds=None, **more):
    return check_program_batch(programs, golds, limits=LIMITS, **{"deadline_s": 60.0, **more})


# --- programs -------------------------------------------------------------------------------------

ENDINGS = [
    # program, status, printed, equal to 7
    ("print(15 - 6 - 2)", "ok", "7", True),
    ("print('Answer: 7.0')", "ok", "7.0", True),
    ("print(7)\nprint(8)\n\n", "ok", "8", False),
    ("print(8)", "ok", "8", False),
    ("print('f(x)')", "ok", "f(x)", None),  # the answer check cannot tell
    ("print(8, 9)", "ok", "8 9", False),
    ("x = 7", "no_output", None, False),
    ("print(' \\n')", "no_output", None, False),
    ("", "no_output", None, False),
    ("print(7)\n1 / 0", "error", None, False),
    ("print(7)\nassert 7 == 8, 'no'", "assertion", None, False),
    ("print(7", "syntax", None, False),
    ("\tprint(7)", "syntax", None, False),
    ("print('\0')", "syntax", None, False),
    ("import os\nprint(7)", "rejected", None, False),
    ("while True: pass", "timeout", None, False),
    ("x = [0] * 10**10\nprint(7)", "memory", None, False),
    ("print('7' * 100_000)", "output", None, False),
    ("input('error: ')\nprint(7)", "error", None, False),
    ("print('error bound')\nprint(7)", "ok", "7", True),
    ("x = 15\r\nprint(x - 8)\r\n", "ok", "7", True),
]


def test_each_ending_has_its_status_and_verdict():
    found = check([program for program, *_ in ENDINGS], ["7"] * len(ENDINGS))
    assert [(one.status, one.printed, one.equal) for one in found] == [row[1:] for row in ENDINGS]
    assert [one.ran for one in found] == [row[1] in ("ok", "no_output") for row in ENDINGS]
    assert "ZeroDivisionError" in found[9].error and found[0].error == ""
    assert all(0 < one.seconds < 60 for one in found)


def test_output_that_is_no_utf_8():
    found = check([f"print({text})" for text in ("'\\udcff'", "'7\\ufffd'", "b'\\xff'")], ["7"] * 3)
    assert [one.status for one in found] == ["ok"] * 3
    assert not any(one.equal for one in found)


def test_without_gold_nothing_is_equal_or_not():
    assert [one.equal for one in check(["print(7)", "1 / 0"])] == [None, None]
    # A program that failed is wrong, whatever the gold answer.
    assert [one.equal for one in check(["1 / 0", ""], ["x" * 100_000] * 2)] == [False, False]
    # A fault of the data must not train as a wrong answer.
    assert [one.equal for one in check(["print(7)"], [" "])] == [None]


def test_assertions_are_counted():
    source = "x = 15 - 6\nassert True\nassert x == 9\nassert x > 0\nprint(x)"
    assert [one.assertions for one in check([source, "print(7"])] == [2, 0]


def test_hard_coded_answers():
    programs = [
        "print(15 - 6 - 2)",
        "print(7)",  # a literal
        "a, b, c = 15, 6, 2\nassert a - b - c == 7\nprint(3 + 4)",  # decoys
        "print(21 // 3)",  # no number of the question
        "print(7 + 0 * 15)",
        "x = 15\nx *= 6 + 2\nprint(x)",  # wrong: not tested
        "print(8)",
        "x = 15\nif x != 15:\n    1 / 0\nprint(15 - 6 - 2)",  # fails on other numbers: it uses them
    ]
    found = check(programs, ["7"] * 8, questions=[QUESTION] * 8)
    expected = [False, True, True, True, True, None, True, False]
    assert [one.hardcoded for one in found] == expected
    # Without the question only literals are known to be hard-coded.
    expected = [None, True, None, None, None, None, True, None]
    assert [one.hardcoded for one in check(programs, ["7"] * 8)] == expected


def test_as_many_golds_and_questions_as_programs():
    with pytest.raises(ValueError, match="1 programs and 2 golds"):
        check(["print(1)"], ["1", "2"])
    with pytest.raises(ValueError, match="1 programs and 0 questions"):
        check(["print(1)"], ["1"], questions=[])
    assert check([], []) == []


# --- the machine ----------------------------------------------------------------------------------


def test_equal_programs_run_once_and_are_remembered(monkeypatch):
    ran = []

    def start(sandbox, programs, limits, real=program_bundles.start):
        ran.append(list(programs))
        return real(sandbox, programs, limits)

    monkeypatch.setattr(program_bundles, "start", start)
    program_runs.forget()
    check(["print(1)", "print(2)", "print(1)"])
    found = check(["print(2)", "print(3)", "1 / 0"])
    assert ran == [["print(1)", "print(2)"], ["print(3)", "1 / 0"]]
    assert [one.printed for one in found] == ["2", "3", None]
    # What a rollout began is waited for; a second beginning of the same changes nothing.
    task().begin([fenced("print(4)"), "no program", fenced("print(4)")])
    task().begin([fenced("print(4)"), fenced("print(1)"), fenced("print(5)")])
    found = judge([fenced(f"print({n})") for n in (4, 5, 6)], ["4", "5", "7"])
    assert found.right_B.tolist() == [True, True, False]
    assert ran[2:] == [["print(4)\n"], ["print(1)\n", "print(5)\n"], ["print(6)\n"]]


def test_what_was_begun_counts_from_the_verdict_and_is_dropped_when_it_is_late():
    program_runs.forget()
    slow = "x = 0\nfor i in range(10**12): x += i\nprint(x)"
    other = "import math\nprint(1)"
    how = {"limits": Limits(wall_s=60.0, cpu_s=60.0), "workers": 1}
    program_runs.begin([slow, other], **how)
    running, waiting = program_runs._begun.values()
    found = check_program_batch([slow, other], ["1"] * 2, deadline_s=0.5, **how)
    assert [one.status for one in found] == ["late", "late"]
    assert not program_runs._begun and waiting.cancelled() and not running.cancelled()
    shared.close_shared()
    assert check_program_batch(["print(1)"], ["1"], **how)[0].equal is True


def test_what_was_begun_and_never_asked_for_is_dropped_with_the_task():
    program_runs.forget()
    one = task()
    one.begin([fenced("print(2)"), fenced("print(7)")])
    one.close()
    assert not program_runs._begun
    # A sandbox that was closed meanwhile would have lost it.
    assert judge([fenced("print(7)")]).right_B.tolist() == [True]


def test_a_defect_of_the_sandbox_is_raised_at_once(monkeypatch):
    program_runs.forget()
    monkeypatch.setattr(shared.shared(LIMITS), "run", lambda program: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        check(["print(1)", "print(2)"], ["1", "2"])


def test_a_batch_ends_at_its_deadline_and_the_rest_is_undecided():
    slow = "x = 0\nfor i in range(10**12): x += i\nprint(x)"
    programs = ["print(1)", *(f"# {n}\n{slow}" for n in range(40)), "import math\nprint(2)"]
    how = {"limits": Limits(wall_s=60.0, cpu_s=60.0), "workers": 1}
    start = time.monotonic()
    found = check_program_batch(programs, ["1"] * 42, deadline_s=3.0, **how)
    assert time.monotonic() - start < 20
    assert found[0].equal is True
    late = found[1:]
    assert {(one.status, one.equal, one.ran) for one in late} == {("late", None, False)}
    shared.close_shared()  # ends the one that still runs
    # What was late was not remembered.
    assert check_program_batch(programs[-1:], ["2"], **how)[0].equal is True


def test_a_lost_worker_costs_its_row(monkeypatch):
    program_runs.forget()
    sandbox = shared.shared(LIMITS)
    run = sandbox.run

    def failing(program):
        if "lost" in program:
            raise SandboxError("two zygotes were lost")
        if "descriptors" in program:
            raise OSError("too many open files")
        return run(program)

    monkeypatch.setattr(sandbox, "run", failing)
    found = check(["print(1)", "print('lost')", "print('descriptors')", "print(2)"], ["1"] * 4)
    assert [one.status for one in found] == ["ok", "lost", "lost", "ok"]
    assert [one.equal for one in found] == [True, None, None, False]


def test_one_sandbox_a_process_that_starts_again_after_it_was_closed():
    first = shared.shared(LIMITS)
    assert shared.shared(LIMITS) is first
    shared.close_shared()
    shared.close_shared()
    with pytest.raises(SandboxError, match="closed"):
        first.run("print(1)")
    assert shared.shared(LIMITS) is not first
    assert check(["print(11)"])[0].printed == "11"


# --- the task -------------------------------------------------------------------------------------


def task(rounds=1, **settings):
    return ProgramTask(DataSettings(), None, ProgramSettings(wall_s=20.0, **settings), rounds)


def judge(texts, golds=None):
    golds = golds or ["7"] * len(texts)
    problems = [Problem("p", QUESTION, "", gold) for gold in golds]
    return task().judge(problems, texts, np.ones(len(texts), bool))


def test_the_registry_has_it():
    assert TASKS["program"] is ProgramTask


def test_completions_by_hand():
    texts = [
        f"Subtract.\n{fenced('print(15 - 6 - 2)')}\nThe answer is 8.",  # the text has no say
        "#### 7",
        "```python\nprint(15 - 6 - 2)",
        fenced("print(1)") + "\n" + fenced("print(15 - 6 - 2)"),
        fenced("print(7)"),
        fenced("import os"),
    ]
    found = judge(texts)
    assert found.right_B.tolist() == [True, False, False, True, True, False]
    assert found.right_B.dtype == found.undecided_B.dtype == bool
    assert not found.undecided_B.any()
    assert [one["status"] for one in found.details] == [
        *("ok", "no_program:none", "no_program:unterminated", "ok", "ok", "rejected"),
    ]
    assert [one["hardcoded"] for one in found.details] == [None, None, None, None, True, None]
    seen = task().observe(texts)
    assert found.stated == [one.answer for one in seen] == ["7", None, None, "7", "7", None]
    problems = [Problem("p", QUESTION, "", "7")] * 6
    assert task().metrics(found) == {
        "programs/ran": 3 / 6,
        "programs/asserted": 0.0,
        "programs/constant": 1 / 6,
    }
    assert task().figures(problems, texts, found)["programs"] == {
        "ran": 3 / 6,
        "asserted": 0.0,
        "hardcoded_rate": 1 / 3,
        "failures": {"no_program:none": 1, "no_program:unterminated": 1, "rejected": 1},
    }


def test_each_completion_meets_the_answer_of_its_own_problem():
    found = judge([fenced("print(2)")] * 2, ["1", "2"])
    assert found.right_B.tolist() == [False, True]


def test_what_the_machine_cannot_run_is_undecided(monkeypatch):
    def lost(program):
        raise SandboxError("two zygotes were lost")

    program_runs.forget()
    settings = ProgramSettings(wall_s=20.0)
    monkeypatch.setattr(shared.shared(settings.limits()), "run", lost)
    found = judge([fenced("print(7)"), "no program"])
    assert found.undecided_B.tolist() == [True, False] and not found.right_B.any()


def test_turns_are_answered_by_the_output_of_their_last_program():
    one = "Add.\n" + fenced("print(1)") + "\nNo.\n" + fenced("print('7' * 3)\nprint()") + "\n"
    failing = fenced("print(3)\nprint(1 / 0)") + "\n"
    several = task(rounds=2)
    assert several.takes_turns and several.asks(one) and not several.asks(fenced("print(1)"))
    first, second, third = several.respond([one, failing, "The answer is 7."])
    assert first == Reply("```output\n777\n```\n") and third is None
    assert second.failed and second.text.startswith("```output\n3\nTraceback")
    assert second.text.endswith("ZeroDivisionError: division by zero\n```\n")
    (cut,) = several.respond([fenced("for i in range(3000): print(i)") + "\n"])
    assert not cut.failed and "[... cut ...]" in cut.text and len(cut.text) < 8100
    assert cut.text.startswith("```output\n0\n1\n") and cut.text.endswith("\n2999\n```\n")
    (stopped,) = several.respond([fenced("while True: pass") + "\n"])
    assert stopped.failed and stopped.text.startswith("```output\n") and len(stopped.text) > 20


def test_a_turn_with_neither_program_nor_answer_is_void():
    several = task(rounds=2)
    turns = [fenced("print(1)"), "The answer is 7.", "So it is.", "", "```python\nprint(1)"]
    assert [several.is_void(turn) for turn in turns] == [False, False, True, True, True]


def test_of_several_rounds_what_did_not_end_is_wrong():
    texts = [fenced("print(15 - 6 - 2)") + "\n7"] * 2
    problems = [Problem("p", QUESTION, "", "7")] * 2
    ended = np.array([True, False])
    for rounds, want in ((1, [True, True]), (2, [True, False])):
        found = task(rounds=rounds).judge(problems, texts, ended)
        assert found.right_B.tolist() == want and not found.undecided_B.any()
        # An answer that is judged wrong for that does not vote, either.
        seen = task(rounds=rounds).observe(texts, ended)
        assert found.stated == [one.answer for one in seen] == ["7", "7" if rounds == 1 else None]
        assert [one.failures for one in seen] == [(), ()]
    assert found.details[1]["status"] == "no_program:truncated"


def test_a_judgement_of_nothing():
    found = judge([])
    assert len(found.right_B) == len(found.undecided_B) == len(found.details) == 0
    assert task().figures([], [], found)["programs"]["hardcoded_rate"] is None
    assert task().metrics(found)["programs/ran"] == 0.0 and task().observe([]) == []


def test_programs_alone_are_trained_on():
    worked = f"Subtract.\n{fenced('print(9)')}"
    for solution, wanted in ((worked, worked), ("<<15-6=9>>\n#### 9", None), ("", None)):
        assert task().response(Problem("p", "q", solution, "9"), bare=False) == wanted
    # A bare answer would be a hard-coded program.
    assert task().response(Problem("p", "q", worked, "9"), bare=True) is None


def test_the_instruction_follows_that_of_the_data():
    data = DataSettings(chat=ChatSettings(instruction="Think.", system_prompt="S"))
    made = ProgramTask(data, None, ProgramSettings(instruction="Program."))
    assert made.chat == ChatSettings(instruction="Think.\nProgram.", system_prompt="S")
    assert ProgramTask(data, None, ProgramSettings(instruction="")).chat == data.chat


def test_a_deadline_below_the_limit_of_one_program_is_refused():
    with pytest.raises(ConfigError, match="wall_s=5.0 with deadline_s=1.0"):
        ProgramTask(DataSettings(), None, ProgramSettings(deadline_s=1.0))


def test_a_machine_that_cannot_hold_programs_is_refused_before_any_work(monkeypatch):
    found = SimpleNamespace(level="partial", layers={"seccomp": (False, "no such call")})
    monkeypatch.setattr(pool, "probe", lambda: found)
    with pytest.raises(SandboxError, match=r"only in part \(partial: seccomp: no such call\)"):
        task()


def test_no_prompt_depends_on_the_answer():
    tok = train_tokenizer(synthetic.texts(synthetic.ProblemSettings(style="program"), 0, 50), 300)
    made = ProgramTask(DataSettings(), tok, ProgramSettings(instruction="Program."))
    solution = fenced("print(7081953)")
    rows = [Problem("p", "How many?", *rest) for rest in (("", "7"), (solution, "7081953"))]
    first, second = made.prompts(rows).prompts
    assert first == second and "How many?\nProgram." in tok.decode(first)


def test_a_deadline_grows_with_the_number_of_programs(monkeypatch):
    given = []

    def run(programs, *, deadline_s, **how):
        given.append(deadline_s)
        return [program_runs.Outcome("ok", "7")] * len(programs)

    monkeypatch.setattr(program_check, "run_programs", run)
    monkeypatch.setattr(program, "BATCH", 3)
    for count, parts in ((2, 1), (3, 1), (7, 3)):
        texts = [fenced(f"print({n} - {n} + 7)") for n in range(count)]
        found = judge(["nothing", *texts])
        assert found.right_B.tolist() == [False] + [True] * count
        assert given.pop() == pytest.approx(parts * 60.0, abs=1.0) and not given


def test_keys_guesses_and_what_can_be_left_out():
    noted = "So:\n```python\n# pens\nx = 15 - 6\nx -= 2  # used\nprint(x)\n# end\n```\nDone."
    bare = fenced("n = 15 - 6\nn -= 2\nprint(n)")
    assert task().key(noted) == task().key(bare) != task().key(fenced("print(15 - 6 - 2)"))
    assert task().key("no  program") == task().key("No program")
    short = task().shortened(noted)
    assert short == "So:\n```python\nx = 15 - 6\nx -= 2\nprint(x)\n```\nDone."
    for text in (bare, "no program", fenced("# only a comment"), fenced("print(7")):
        assert task().shortened(text) is None
    texts = [noted, bare, fenced("x = 7\nprint(x)"), fenced("print([7][0])")]
    problems = [Problem("p", QUESTION, "", "7")] * 4
    assert task().guesses(problems, texts) == [False, False, True, True]
