"""Linear algebra and tables of numbers."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "determinant-inverse",
        r"""
from sympy import Matrix
M = Matrix([[2, 1], [5, 3]])
print(M.det(), M.inv(), M.T, M.trace())
""",
        "1 Matrix([[3, -1], [-5, 2]]) Matrix([[2, 5], [1, 3]]) 5\n",
    ),
    Program(
        "eigenvalues",
        r"""
from sympy import Matrix
M = Matrix([[4, 1], [2, 3]])
print(sorted(M.eigenvals().items()), M.charpoly().as_expr())
""",
        "[(2, 1), (5, 1)] lambda**2 - 7*lambda + 10\n",
    ),
    Program(
        "diagonalise",
        r"""
from sympy import Matrix
M = Matrix([[3, 1], [0, 2]])
P, D = M.diagonalize()
print(D, P * D * P.inv() == M)
""",
        "Matrix([[2, 0], [0, 3]]) True\n",
    ),
    Program(
        "rref-rank",
        r"""
from sympy import Matrix
M = Matrix([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
print(M.rref(), M.rank(), M.nullspace())
""",
        "(Matrix([\n"
        "[1, 0, -1],\n"
        "[0, 1,  2],\n"
        "[0, 0,  0]]), (0, 1)) 2 [Matrix([\n"
        "[ 1],\n"
        "[-2],\n"
        "[ 1]])]\n",
    ),
    Program(
        "solve-linear",
        r"""
from sympy import Matrix
A = Matrix([[2, 1, -1], [-3, -1, 2], [-2, 1, 2]])
b = Matrix([8, -11, -3])
print(A.LUsolve(b).T)
""",
        "Matrix([[2, 3, -1]])\n",
    ),
    Program(
        "linsolve",
        r"""
from sympy import linsolve, symbols
x, y, z = symbols("x y z")
print(linsolve([x + y + z - 6, x - y + z - 2, 2*x + y - z - 1], x, y, z))
""",
        "{(1, 2, 3)}\n",
    ),
    Program(
        "fibonacci-matrix",
        r"""
def mul(a, b):
    return [[sum(x * y for x, y in zip(r, c)) for c in zip(*b)] for r in a]
def power(m, n):
    result = [[1, 0], [0, 1]]
    while n:
        if n % 2:
            result = mul(result, m)
        m, n = mul(m, m), n // 2
    return result
print(power([[1, 1], [1, 0]], 100)[0][1])
""",
        "354224848179261915075\n",
    ),
    Program(
        "determinant-by-hand",
        r"""
def det(m):
    if len(m) == 1:
        return m[0][0]
    total = 0
    for j, first in enumerate(m[0]):
        minor = [r[:j] + r[j + 1:] for r in m[1:]]
        total += (-1) ** j * first * det(minor)
    return total
print(det([[2, 0, 1], [1, 3, 2], [1, 1, 4]]))
""",
        "18\n",
    ),
    Program(
        "transpose-print",
        r"""
m = [[1, 2, 3], [4, 5, 6]]
for row in zip(*m):
    print(*row)
""",
        "1 4\n2 5\n3 6\n",
    ),
    Program(
        "magic-square",
        r"""
m = [[2, 7, 6], [9, 5, 1], [4, 3, 8]]
sums = {sum(r) for r in m} | {sum(c) for c in zip(*m)}
sums |= {sum(m[i][i] for i in range(3)), sum(m[i][2 - i] for i in range(3))}
print(sums)
""",
        "{15}\n",
    ),
    Program(
        "spiral",
        r"""
def spiral(n):
    g = [[0] * n for _ in range(n)]
    r, c, dr, dc = 0, 0, 0, 1
    for k in range(1, n * n + 1):
        g[r][c] = k
        if not (0 <= r + dr < n and 0 <= c + dc < n and g[r + dr][c + dc] == 0):
            dr, dc = dc, -dr
        r, c = r + dr, c + dc
    return g
for row in spiral(4):
    print(" ".join(f"{v:2d}" for v in row))
""",
        " 1  2  3  4\n12 13 14  5\n11 16 15  6\n10  9  8  7\n",
    ),
    Program(
        "gauss-fractions",
        r"""
from fractions import Fraction
rows = [[Fraction(v) for v in r] for r in ([2, 1, 5], [1, 3, 10])]
for i in range(2):
    p = rows[i][i]
    rows[i] = [v / p for v in rows[i]]
    for j in range(2):
        if j != i:
            f = rows[j][i]
            rows[j] = [a - f * b for a, b in zip(rows[j], rows[i])]
print([str(r[-1]) for r in rows])
""",
        "['1', '3']\n",
    ),
    Program(
        "matrix-power-sympy",
        r"""
from sympy import Matrix, eye, zeros, ones, diag
M = Matrix([[1, 1], [0, 1]])
print(M**10, eye(2) + ones(2, 2), zeros(1, 3), diag(1, 2))
""",
        "Matrix([[1, 10], [0, 1]]) Matrix([[2, 1], [1, 2]]) Matrix([[0, 0, 0]]) "
        "Matrix([[1, 0], [0, 2]])\n",
    ),
    Program(
        "gram-schmidt",
        r"""
from sympy import Matrix, GramSchmidt
print(GramSchmidt([Matrix([3, 1]), Matrix([2, 2])]))
""",
        "[Matrix([\n[3],\n[1]]), Matrix([\n[-2/5],\n[ 6/5]])]\n",
    ),
    Program(
        "symbolic-determinant",
        r"""
from sympy import symbols, Matrix, factor
a, b, c = symbols("a b c")
print(factor(Matrix([[1, a, a**2], [1, b, b**2], [1, c, c**2]]).det()))
""",
        "-(a - b)*(a - c)*(b - c)\n",
    ),
]
