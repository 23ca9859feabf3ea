"""What programs print: formats, unicode, tables, big integers, odd objects."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "formats",
        r"""
x = 1234567.891
print(f"{x:,.2f}|{x:>15.1f}|{x:<15.1f}|{x:^15.1f}|{x:e}|{x:+.0f}|{0.256:.1%}")
""",
        "1,234,567.89|      1234567.9|1234567.9      |   1234567.9   "
        "|1.234568e+06|+1234568|25.6%\n",
    ),
    Program(
        "print-sep-end",
        r"""
print(1, 2, 3, sep=", ", end=".\n")
print("a", "b", sep="", end="")
print()
print(*range(5), sep=" < ")
""",
        "1, 2, 3.\nab\n0 < 1 < 2 < 3 < 4\n",
    ),
    Program(
        "unicode",
        r"""
print("π ≈ 3.14159, √2 ≈ 1.41421, 3 × 4 = 12, x² ≤ 9 ⇒ |x| ≤ 3")
print("答えは42です", "Ответ: 7", "½ + ¼ = ¾", "\N{GREEK SMALL LETTER THETA}")
""",
        "π ≈ 3.14159, √2 ≈ 1.41421, 3 × 4 = 12, x² ≤ 9 ⇒ |x| ≤ 3\n"
        "答えは42です Ответ: 7 ½ + ¼ = ¾ θ\n",
    ),
    Program(
        "multi-line-string",
        r'''
answer = 42
print(f"""Step 1: add.
Step 2: multiply.
    Answer: {answer}
""")
''',
        "Step 1: add.\nStep 2: multiply.\n    Answer: 42\n\n",
    ),
    Program(
        "old-formats",
        r"""
print("%d items at $%.2f each, %5.1f%% off" % (3, 4.5, 12.25))
print("{0} + {1} = {2}; {name!r}".format(1, 2, 1 + 2, name="n"))
""",
        "3 items at $4.50 each,  12.2% off\n1 + 2 = 3; 'n'\n",
    ),
    Program(
        "debug-format",
        r"""
n, values = 7, [1, 2]
print(f"{n=} {n**2 = } {values!r:>10} {n:03d} {n:#b}")
""",
        "n=7 n**2 = 49     [1, 2] 007 0b111\n",
    ),
    Program(
        "table",
        r"""
for n in range(1, 6):
    print(f"{n:>2} {n**2:>4} {n**3:>5} {2**n:>3}")
""",
        " 1    1     1   2\n"
        " 2    4     8   4\n"
        " 3    9    27   8\n"
        " 4   16    64  16\n"
        " 5   25   125  32\n",
    ),
    Program(
        "triangle-of-stars",
        r"""
for i in range(1, 5):
    print(" " * (4 - i) + "*" * (2 * i - 1))
""",
        "   *\n  ***\n *****\n*******\n",
    ),
    Program(
        "pascal",
        r"""
row = [1]
for _ in range(6):
    print(" ".join(map(str, row)).center(20).rstrip())
    row = [1] + [a + b for a, b in zip(row, row[1:])] + [1]
""",
        "         1\n        1 1\n       1 2 1\n      1 3 3 1\n     1 4 6 4 1\n   1 5 10 10 5 1\n",
    ),
    Program(
        "sorted-set",
        r"""
print(sorted({3, 1, 2, 3, 10, 7}), sorted("banana"))
print(sorted(["b", "A", "c"], key=str.lower, reverse=True))
""",
        "[1, 2, 3, 7, 10] ['a', 'a', 'a', 'b', 'n', 'n']\n['c', 'b', 'A']\n",
    ),
    Program(
        "big-integers",
        r"""
print(2**200)
print(f"{10**30:,}", -(7**50) % 1000, 100**50 // 99**50)
""",
        "1606938044258990275541962092341162602522202993782792835301376\n"
        "1,000,000,000,000,000,000,000,000,000,000 751 1\n",
    ),
    Program(
        "factorial-200",
        r"""
import math
f = math.factorial(200)
print(len(str(f)), str(f)[:10], sum(map(int, str(f))))
""",
        "375 7886578673 1404\n",
    ),
    Program(
        "none-and-booleans",
        r"""
print(None, True, False, not 0, [] or "empty", 3 and 5, 1 < 2 < 3, True + True)
""",
        "None True False True empty 5 True 2\n",
    ),
    Program(
        "floats",
        r"""
print(0.1 + 0.2, 1e100, 1 / 3, 2.0, 1e-7, float("inf"), -0.0, 5 // -2, -5 % 3, 7.5 % 2)
""",
        "0.30000000000000004 1e+100 0.3333333333333333 2.0 1e-07 inf -0.0 -3 1 1.5\n",
    ),
    Program(
        "rounding",
        r"""
print(round(2.5), round(3.5), round(-1.25, 1), round(1234.5678, -2), int(-3.7), 7 // 2)
""",
        "2 4 -1.2 1200.0 -3 3\n",
    ),
    Program(
        "nested-data",
        r"""
data = {"a": [1, (2, 3)], "b": {"c": {4}}, 5: None, (1, 2): "t"}
print(data)
print(data["a"][1][0], data.get("z", "none"))
""",
        "{'a': [1, (2, 3)], 'b': {'c': {4}}, 5: None, (1, 2): 't'}\n2 none\n",
    ),
    Program(
        "escape-characters",
        r"""
print("tab\there", "quote \"inside\"", 'single \'s\'', "back\\slash", sep="\n")
""",
        "tab\there\nquote \"inside\"\nsingle 's'\nback\\slash\n",
    ),
    Program(
        "zfill-justify",
        r"""
for word in ["one", "three", "eleven"]:
    print(word.ljust(8, ".") + str(len(word)).rjust(3) + str(len(word)).zfill(3))
""",
        "one.....  3003\nthree...  5005\neleven..  6006\n",
    ),
    Program(
        "roman",
        r"""
def roman(n):
    out = ""
    values = [1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1]
    symbols = "M CM D CD C XC L XL X IX V IV I".split()
    for v, s in zip(values, symbols):
        while n >= v:
            out, n = out + s, n - v
    return out
print(roman(1994), roman(2024), roman(49))
""",
        "MCMXCIV MMXXIV XLIX\n",
    ),
    Program(
        "caesar",
        r"""
text = "Hello, World"
out = ""
for ch in text:
    if ch.isalpha():
        base = ord("A") if ch.isupper() else ord("a")
        out += chr((ord(ch) - base + 3) % 26 + base)
    else:
        out += ch
print(out, out.swapcase(), text[::-1], text.lower().count("o"))
""",
        "Khoor, Zruog kHOOR, zRUOG dlroW ,olleH 2\n",
    ),
    Program(
        "no-output",
        r"""
x = 1 + 1
""",
        "",
    ),
    Program(
        "only-newlines",
        r"""
print()
print("")
print("\n")
""",
        "\n\n\n\n",
    ),
    Program(
        "final-answer-box",
        r"""
total = 18
print(f"The final answer is $\\boxed{{{total}}}$.")
""",
        "The final answer is $\\boxed{18}$.\n",
    ),
    Program(
        "many-lines",
        r"""
for i in range(1, 1001):
    if i % 250 == 0:
        print("#", i)
""",
        "# 250\n# 500\n# 750\n# 1000\n",
    ),
    Program(
        "nearly-the-output-limit",
        r"""
print(len("x" * 60000))
print("x" * 3000 == "xyz"[0] * 3000)
""",
        "60000\nTrue\n",
    ),
    Program(
        "stdout-of-thousand-numbers",
        r"""
squares = [n * n for n in range(120)]
print(*squares, sep=",")
""",
        "0,1,4,9,16,25,36,49,64,81,100,121,144,169,196,225,256,289,324,361,400,441,484,"
        "529,576,625,676,729,784,841,900,961,1024,1089,1156,1225,1296,1369,1444,1521,16"
        "00,1681,1764,1849,1936,2025,2116,2209,2304,2401,2500,2601,2704,2809,2916,3025,"
        "3136,3249,3364,3481,3600,3721,3844,3969,4096,4225,4356,4489,4624,4761,4900,504"
        "1,5184,5329,5476,5625,5776,5929,6084,6241,6400,6561,6724,6889,7056,7225,7396,7"
        "569,7744,7921,8100,8281,8464,8649,8836,9025,9216,9409,9604,9801,10000,10201,10"
        "404,10609,10816,11025,11236,11449,11664,11881,12100,12321,12544,12769,12996,13"
        "225,13456,13689,13924,14161\n",
    ),
    Program(
        "bytes-and-bytearray",
        r"""
b = bytes([72, 105]) + b"!"
print(b, b.decode(), list(b), b.hex(), int.from_bytes(b, "big"), (1000).to_bytes(2, "big"))
""",
        "b'Hi!' Hi! [72, 105, 33] 486921 4745505 b'\\x03\\xe8'\n",
    ),
    Program(
        "repr-of-fractions",
        r"""
from fractions import Fraction
print([Fraction(1, 2), Fraction(-3, 6)])
print(Fraction("0.125"), Fraction(0.5), Fraction(7, 3).limit_denominator(2))
""",
        "[Fraction(1, 2), Fraction(-1, 2)]\n1/8 1/2 5/2\n",
    ),
]
