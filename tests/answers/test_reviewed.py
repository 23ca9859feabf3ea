"""What reviews found: readings that paid for wrong answers, or punished right ones."""

import pytest

from distill_jax.answers import (
    check,
    check_batch,
    compare,
    equivalent,
    equivalent_batch,
    extract,
    printed,
)
from distill_jax.answers.pool import NO_ANSWER
from distill_jax.answers.single import Finding
from distill_jax.core.errors import DataError

RIGHT = [
    ('(x+1)^2', '(x+1)**(2)'), ('\\sqrt{x+1}', '(x + 1)**(1/2)'), ('8', '(2)**(3)'),
    ('5', '**5**'), ('5', '**5** apples'), ('x^2', 'x ** 2'), ('(1+sqrt(5))**3', '(1+\\sqrt5)^3'),
    ('2e', '2*E'), ('e', 'E'), ('1+2i', '(1+2j)'), ('e^{e^x}', 'e^{(e^x)}'), ('21', 'twenty-one'),
    ('1/2', 'one half'), ('2/3', 'two thirds'), ('3/4', 'three fourths'), ('100', 'one hundred'),
    ('25', 'twenty five'), ('500', 'five hundred'), ('-5', 'negative five'),
    ('103', 'one hundred and three'), ('5', 'five apples'), ('12', '12 more apples'),
    ('5000', 'five thousand'), ('1500000', '1.5 million'), ('1500000', '1.5 million dollars'),
    ('3', 'three cats'), ('16', '16\\text{ units}^2'), ('16', '16 square units'),
    ('30', '30 cookies'), ('7', 'seven'), ('5 hundred', '500'),
    ('1234', 'one thousand two hundred thirty-four'), ('0', 'zero'), ('1000000', 'one million'),
    ('7', '7 units'), ('\\frac12', '\\frac{1}{2} V'), ('4 s', 's+s+s+s'),
    ('\\frac{\\sqrt3}{4} s^2', '\\frac{s^2\\sqrt3}{4}'), ('4 s', '4'), ('4 s', '4 seconds'),
    ('5 N m', '5'), ('36\\pi m^2', '36\\pi'), ('36\\pi \\text{ m}^2', '36\\pi'), ('2 m', 'm+m'),
    ('5 hrs', '5 hours'), ('12 pts', '12'), ('5m', '5 m'), ('(1,3)', 'x>1, x<3'),
    ('(1,3)', '\\{x \\mid x > 1, x < 3\\}'), ('(5,7)', '5 < x and x < 7'),
    ('(1,2)\\cup(2,\\infty)', 'x > 1, x \\neq 2'),
    ('(-\\infty,1)\\cup(1,2)\\cup(2,\\infty)', 'x \\neq 1, x \\neq 2'),
    ('x<1, x>3', '(-\\infty,1)\\cup(3,\\infty)'), ('x<1 or x>3', 'x<1, x>3'),
    ('x>1, y<3', 'x>1, y<3'), ('x>1, y<3', 'y<3, x>1'), ('1,-2', '[-2, 1]'), ('3,-3', '[-3, 3]'),
    ('1,2,3', '[3,2,1]'), ('(1,2,3)', '[1,2,3]'), ('\\pm 1, \\pm 2', '1,-1,2,-2'), ('a t', 'a*t'),
    ('as', 's a'), ('xy', 'yx'), ('nR', 'Rn'), ('AB', 'AB'), ('no', 'No'), ('the dog', 'dog'),
    ('Tuesday', 'tuesday'), ('Ann', 'ann'), ('\\lfloor(n+1)/2\\rfloor', '\\lceil n/2\\rceil'),
    ('\\lfloor n^2/4\\rfloor', '\\lfloor n/2\\rfloor\\lceil n/2\\rceil'),
    ('(-1)^n+1', '1+(-1)^n'), ('(-2)^{n-1}', '-(-2)^n/2'), ('x^{x^x}', 'x^{(x^x)}'),
    ('2^{2^n}', '4^{2^{n-1}}'), ('B', 'B) no'), ('\\frac{4}{3}\\pi abc', '\\frac{4\\pi abc}{3}'),
    ('3 theta', '3\\theta'), ('18', '18 times'), ('18', '18 in total'), ('$18 in total', '18'),
    ('18 eggs left over', '18'), ('18 of them', '18'), ('18 a month', '18'),
    ('18% of the students', '18'), ('18 ft tall', '18'), ('18 on Monday', '18'),
    ('18 boys and girls', '18'), ('\\frac34', '\\frac{3}{4}\\text{ of the cake}'),
    ('25_{6}', 'x = 25_{6}'), ('2:3', 'a:b = 2:3'), ('3:30', 't = 3:30'),
    ('\\{\\pm1,\\pm2\\}', '\\{1,-1,2,-2\\}'), ('(3,\\pm 4)', '(3,4),(3,-4)'),
    ('100, 200, 300', '300,200,100'), ('100', 'a hundred'),
    # Digits grouped by negative and thin spaces.
    (r'11,\! 111,\! 111,\! 100', '11111111100'), (r'1{,}\!234{,}\,567', '1234567'),
    (r'1\!,\!234', '1234'), (r'11\,111\;111', '11111111'), (r'11,\!111.5', '11111.5'),
    # Lists in pieces of math.
    ('$1$ and $2$ and $3$', '1,2,3'), ('$21,16$ or $11$', '21,16,11'), ('1 or $2$', '1,2'),
    (r'\(1\), \(2\) and \(3\)', '1,2,3'), (r'$1 \text{ and } 2$ and $3$', '1,2,3'),
    # A ratio of names is a name; the number compared with it is a ratio, not a time of day.
    (r'\frac{NO}{BO}=\frac{1}{\sqrt6}', r'\frac{1}{\sqrt6}'), ('V_1:V_2=11:21', '11:21'),
    ('V_1:V_2=11:21', '11/21'), ('AB/CD = 2', '2'), ('2 = AB/CD', '2'), ('a:b=2:3', '2/3'),
    (r'\frac{V_{1}}{V_{2}} = 3', '3'), (r'\frac{[ABC]}{[DEF]} = \frac14', '0.25'),
    (r'\angle A : \angle B = 1:2', '1:2'), ('x:y:z = 1:2:3', '1 : 2 : 3'), ('y/x = z', 'y/x'),
    ('a:b=2:3', r'\frac{a}{b}=\frac23'), (r'\frac{dy}{dx} = 2x', '2x'), ('x/y=2', 'x/y=4/2'),
    # Assignments in groups.
    ('p=5,q=2;p=7,q=2', '(5,2),(7,2)'), ('p=5,q=2 or p=7,q=2', '(7,2),(5,2)'),
    ('x=1 and y=2 or y=4 and x=3', '(1,2),(3,4)'), ('p=5,q=2;p=7,q=2', r'\{(5,2),(7,2)\}'),
    ('p=5,q=2;p=7,q=2', 'q=2,p=7;q=2,p=5'), ('(p,q)=(5,2) or (7,2)', 'p=5,q=2;p=7,q=2'),
    ('x=1,y=2,z=3;x=4,y=5,z=6', '(1,2,3),(4,5,6)'), ('x=1;x=2', '1,2'),
]  # fmt: skip
WRONG = [
    ('2x+2', '(x+1)**(2)'), ('10-x', '|x-10|'), ('6-x', '\\sqrt{x^2-12x+36}'), ('x+3', '|x+3|'),
    ('0', '\\binom{n}{15}'), ('\\lfloor x\\rfloor', '\\lceil x\\rceil-1'),
    ('a! b + c^2', 'a! b+11c-24'), ('1', '\\tanh(100)'), ('1', 'e^{10^{-50}}'), ('45', '40 5'),
    ('9', '4 5'), ('12', '5 \\quad 7'), ('5', 'five hundred'), ('20', 'twenty one'),
    ('1', 'one half'), ('2', '2 g h'), ('3 m', 'm+m'), ('m/s', 's'), ('\\mathbb{R}', 'x>1, x<3'),
    ('\\mathbb{R}', 'x \\neq 1, x \\neq 2'), ('\\mathbb{R}', 'x > 1, x \\neq 2'),
    ('1,-2', '(-2, 1)'), ('(1,2,3)', '[3,2,1]'), ('[1,2]', '[2,1]'), ('t', 'a t'), ('s', 'a s'),
    ('xY', 'Xy'), ('kx', 'Kx'), ('vitamin', 'vitamin A'), ('no', 'yes'), ('yes', 'no'),
    ('2000-x', '|x-2000|'), ('0', '\\binom{n}{100}'), ('n!', 'n!-\\lfloor n/50\\rfloor'),
    ('e^{x^2}', 'e^{x^2}+1'), ('B', '(B) or (C)'), ('B', '(B), (C)'), ('A', '(A), (B), (C), (D)'),
    ('x abc', 'x'), ('5', 'the answer never equals 5'), ('18', '18 and 20'),
    ('1', 'one hundred one hundred'), ('11, 111, 111, 100', '11111111100'),
    (r'11,\, 111', '11111'), (r'1,\!23', '123'), (r'11,\! 111', '11112'),
    ('$1$ and $2$ and $3$', '1,2'), ('$21,16$ or $11$', '21'), ('$1$ and $2$', '(2,1)'),
    (r'\frac{NO}{BO}=\frac{1}{\sqrt6}', r'\sqrt6'), (r'\frac{x}{y} = x', 'x'),
    ('V_1:V_2=11:21', '23:21'), ('V_1:V_2=11:21', 'V_1:V_2=23:21'), ('11:21', 'V_2:V_1=21:11'),
    ('V_1:V_2=11:21', '11:21 am'), ('a:b=2:3', 'A'), ('x/2 = 5', '5'), ('x/y = 2', '1/2'),
    ('p=5,q=2;p=7,q=2', '(2,5),(7,2)'), ('p=5,q=2;p=7,q=2', '(5,7),(2,2)'),
    ('p=5,q=2;p=7,q=2', '(5,2)'), ('p=5,q=2;q=7,p=2', '(5,2),(7,2)'),
    ('p=5,q=2;p=7', '(5,2),7'), ('p=5,q=2;p=7,r=2', '(5,2),(7,2)'), ('p=5;q=2', '(2,5)'),
]  # fmt: skip
# Wrong or undecided, as long as it is never right.
NOT_RIGHT = [
    ('x+e-5', 'x+1e-5'), ('\\zeta(2)', '\\frac{\\pi^2}{6}'), ('\\Gamma(5)', '24'),
    ('\\operatorname{cis}(30)', '2'), ('6', '1|2|3'), ('x', "x'"), ("A'B'", 'AB'),
    ('5', '5 \\cdots'), ('f(2)=5', 'f(3)=5'),
    ('\\frac{\\pi^2}{6}', '\\sum_{n=1}^{\\infty} \\frac{1}{n^2}'), ('3', '[1 2]'),
    ('5', 'five squared'), ('3', '3 dozen'), ('36', '3 dozen'), ('3', '3 halves'),
    ('2', '2 thirds'), ('5', '5 tenths'), ('5', '5 below zero'), ('5', '5 lakh'), ('5', '5 xyz'),
    ('3', '3 sinx'), ('1', '1 inf'), ('101', '101 base two'), ('5', '5 seven'),
    ('5', '5 remainder two'), ('5', '5 wrong'), ('57', 'five seven'), ('25', 'five twenty'),
    ('20', 'a score'), ('12', 'twelve dozen'), ('6', 'half a dozen'), ('x>1, y<3', '(1,3)'),
    ('x > a, x < b', '(a,b)'), ('AB', 'ab'), ('abcd', 'dcba'),
    ('\\triangle ABC', '\\triangle DEF'), ('18', '18 at most'), ('18', '18 of 20'),
    ('5', '5 over 7'), ('(0,\\infty)', '\\mathbb{R}^+'),
    ('x \\ne 0', '\\mathbb{R}\\setminus\\{0\\}'), ('5', '5 times x'),
]  # fmt: skip
EXTRACTED = [
    ('**Answer**: 5', '5'), ('**Final Answer**\n\n5', '5'), ('Answer:\n\n5', '5'),
    ('**Answer:**\n\n5', '5'), ('### Answer\n5', '5'),
    ('The answer is\n\n\\[ x = 5. \\]', 'x = 5'), ('The answer is\n\\[ x = 5. \\]', 'x = 5'),
    ('The answer is 5.\n#### 2. Verification', '5'), ('\\boxed{5}\n\n#### 3) Verification', '5'),
    ('#### Step 1: do\nThe answer is Tuesday', 'Tuesday'), ('#### Final Answer\n5', '5'),
    ('<answer>The answer is 5</answer>', '5'), ('<answer> answer: 5</answer>', '5'),
    ("The answer isn't 5; it is 7", None), ('\\textbf{Answer: } 5', '5'),
    ('\\boxed\\frac{1}{2}', '\\frac{1}{2}'), ('\\boxed \\frac12', '\\frac12'), ('#### 5', '5'),
    ('#### yes', 'yes'), ('The answer is $$\n5\n$$ .', '5'), ('the answer is 3.5. Done.', '3.5'),
    ('Final answer: 12 apples', '12 apples'), ('#### 1,234', '1,234'),
    ('I check my answer\n\nSo 5', None), ('The final answer is: **42**', '42'),
    ('The answer is $x$.', '$x$'), ('### Final Answer:\n\n**12**', '12'), ('#### 5. ', '5.'),
    ('So the correct answer is (B) 12.', '(B) 12'), ('The answer is \\(5\\).', '\\(5\\)'),
    ('<answer>#### 5</answer>', '5'), ('(If so, the answer is 800.)', '800'),
    ('so\nA: 18', '18'), ('A: 18', '18'), ('3*6 = 18\nAnswer: 18', '18'), ('**A:** $18\n', '$18'),
    ('Q: why?\nA: 18 apples.\n', '18 apples'), ('#### 5\nA: 18', '18'), ('Ans: 1/2', '1/2'),
    ('x\nA: eighteen', 'eighteen'), ('x\nA: 18 because 3*6=18', '18'), ('A: 18\nso what', None),
    ('B: 20\nA: 18', None), ('A: 18, B: 20', None), ('x\nA: we know 18', None), ('a: 18', None),
    ('The answer is 5.\nA: 18', '18'), ('A = 18', None), ('\\boxed{5}\nA: clear', '5'),
    ('\\boxed{10}\n\nCheck: half of the answer is 5.', '10'), ('\\boxed{5}\\boxed{}', '5'),
]  # fmt: skip
PRINTED = [
    ('{x: 5}', '5'), ('[{x: 5}]', '5'), ('(x = 5)', '(x = 5)'), ('a=5, b=6', 'a=5, b=6'),
    ('x = 5', '5'), ('Answer: 5', '5'), ('{x: 5, y: 6}', '{x: 5, y: 6}'),
    ('Total cost: $5', '$5'), ('[1, 2]', '[1, 2]'), ('x: 5, y: 7', 'x: 5, y: 7'),
]  # fmt: skip


@pytest.mark.parametrize(("verdict", "pairs"), [("right", RIGHT), ("wrong", WRONG)])
def test_verdicts_either_way_round(verdict, pairs):
    for first, second in pairs:
        for pair in ((first, second), (second, first)):
            assert equivalent(*pair).verdict == verdict, pair


def test_never_right():
    for first, second in [*NOT_RIGHT, ("5", "A)" * 495), ("5", r"\$" * 495), ("5", "a:" * 495)]:
        for pair in ((first, second), (second, first)):
            assert equivalent(*pair).verdict != "right", pair


def test_extracted():
    found = [(text, answer.text if (answer := extract(text)) else None) for text, _ in EXTRACTED]
    assert found == EXTRACTED


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answers are 1 and 2.", "1 and 2"),
        ("The answer would be 42", "42"),
        ("Hence, 42 is the answer.", "42"),
        ("So 3/4 is the correct answer", "3/4"),
        ("5 is the answer? No: the answer is 6.", "6"),
    ],
)
def test_sentences(text, answer):
    assert extract(text).text == answer


def test_a_gold_without_an_answer_is_no_wrong_answer():
    golds = ["", "  ", "We count 3 apples and 4 pears, 7 in all.", "7", "Tuesday."]
    found = check_batch(golds, [r"\boxed{7}"] * 5)
    assert [v.verdict for v in found] == ["undecided"] * 3 + ["right", "wrong"]
    assert check_batch([""], ["nothing"])[0].verdict == "undecided"


def test_whole_solutions_are_reduced_on_either_side():
    for one, other in ((r"Thus \boxed{5}.", "5"), ("so 2+3 = 5\n#### 5", r"\boxed{5}")):
        for pair in ((one, other), (other, one)):
            assert equivalent(*pair).right and equivalent_batch([pair])[0].right, pair


def test_a_verdict_is_as_true_as_the_answer_is_right():
    assert equivalent("5", "5") and not equivalent("5", "6") and not equivalent("f(x)", "f(y)")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_batch(["1"], ["1", "2"]), "1 golds and 2 texts"),
        (lambda: check_batch(["1", None], ["1", "2"]), r"golds\[1\] is a NoneType"),
        (lambda: check_batch("12", ["1", "2"]), "golds is one text"),
        (lambda: check_batch(["1"], [[{"role": "assistant", "content": "1"}]]), r"texts\[0\] is a"),
        (lambda: equivalent_batch([("1", "1"), ("1",)]), r"pairs\[1\]"),
        (lambda: equivalent_batch(["12"]), r"pairs\[0\]"),
        (lambda: extract(None), "a NoneType; wanted: text"),
    ],
)
def test_what_is_no_text(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_printed():
    found = [(text, answer.text if (answer := printed(text)) else None) for text, _ in PRINTED]
    assert found == PRINTED


def nested(leaf):
    for _ in range(5):
        leaf = "{" + ",".join([leaf] * 3) + "}"
    return leaf


def test_sets_in_sets_in_sets_end(monkeypatch):
    """Without a bound on comparisons each level would multiply them by nine."""
    assert equivalent(nested("1"), nested("2")).verdict != "right"
    monkeypatch.setattr(compare, "MAX_COMPARISONS", 5)
    found = equivalent("{11,12,13}", "{13,12,11}")
    assert (found.verdict, found.reason) == ("undecided", "more than 5 parts to compare")


def test_a_worker_that_gave_no_answer_is_asked_again(monkeypatch):
    class Pool:
        said = [[NO_ANSWER], [Finding("right", "equal values")]]

        def judge_all(self, pairs):
            return self.said.pop(0)

    pool = Pool()
    monkeypatch.setattr(check, "shared_pool", lambda: pool)
    pair = ("sqrt(5)+q", "q+sqrt(5)")
    assert equivalent(*pair).verdict == "undecided"
    assert equivalent(*pair).verdict == "right"
    assert equivalent(*pair).verdict == "right"  # remembered: the pool has nothing left to say
