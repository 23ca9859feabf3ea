"""Loads all of sympy and makes the calls that import more or fill caches.

Skipped are parsers of other languages, plotting, code generation and parts of physics, which need
other packages, files or much memory, and two modules that write a manual for a second.
"""

import importlib
import pkgutil
import random
import warnings
from collections.abc import Iterator
from types import ModuleType

# Public subpackages that a program may use, each with all its modules.
SUBMODULES = (
    "algebras assumptions calculus categories combinatorics concrete core crypto diffgeom discrete "
    "external functions geometry holonomic integrals interactive liealgebras logic matrices "
    "multipledispatch ntheory parsing physics polys printing series sets simplify solvers stats "
    "strategies tensor unify utilities vector"
).split()

LEFT_OUT = (
    "tests benchmarks conftest "
    "parsing.autolev parsing.c parsing.fortran parsing.latex parsing.sym_expr "
    "physics.biomechanics physics.continuum_mechanics physics.control physics.hep "
    "physics.mechanics physics.optics physics.quantum physics.vector "
    "printing.aesaracode printing.dot printing.gtk printing.llvmjitcode printing.preview "
    "printing.pytorch printing.tensorflow printing.theanocode printing.tableform "
    "integrals.meijerint_doc simplify.hyperexpand_doc "
    "core.compatibility core.trace utilities._compilation utilities.autowrap utilities.codegen "
    "utilities.mathml utilities.pytest utilities.randtest utilities.runtests utilities.tmpfiles"
).split()

WARM_UP = """
str(solve(x**2 - 5*x + 6, x)), solve([x + y - 3, x - y - 1], [x, y]), solve(x**3 - x - 1, x)
solveset(sin(x) - 1, x, S.Reals), solve(Abs(x - 2) < 3, x), nsolve(cos(x) - x, x, 1)
factorint(360), isprime(97), divisors(28), totient(12), primerange(1, 30), nextprime(7)
integrate(sin(x)*x, x), integrate(exp(-x**2), (x, -oo, oo)), integrate(1/(x**2 + 1), x)
diff(sin(x)*exp(x), x), limit(sin(x)/x, x, 0), series(exp(x), x, 0, 4)
summation(k, (k, 1, n)), Sum(1/k**2, (k, 1, oo)).doit(), product(k, (k, 1, n))
binomial(10, 3), factorial(10)
Matrix([[2, 1], [1, 3]]).eigenvals(), Matrix([[1, 2], [3, 4]]).inv(), Matrix([[1, 2], [3, 4]]).det()
dsolve(f(x).diff(x) - f(x), f(x)), rsolve(g(n + 1) - 2*g(n), g(n), {g(0): 1})
simplify(sin(x)**2 + cos(x)**2), expand((x + 1)**3), factor(x**3 - 1), apart(1/(x*(x + 1)))
together(1/x + 1/y), cancel((x**2 - 1)/(x - 1)), nsimplify(0.5), trigsimp(sin(x)/cos(x))
radsimp(1/(1 + sqrt(2))), sqrtdenest(sqrt(5 + 2*sqrt(6))), minimal_polynomial(sqrt(2), x)
Poly(x**4 + 1, x).factor_list(), groebner([x + y, x*y - 1], x, y), roots(x**3 - 1, x)
latex(x**2/3), pretty(x**2/3, use_unicode=True), sympify('x**2 + 1/2'), srepr(x), N(pi, 30)
Point(0, 0).distance(Point(3, 4)), Triangle(Point(0, 0), Point(3, 0), Point(0, 4)).area
Circle(Point(0, 0), 1).intersection(Line(Point(0, 0), Point(1, 1)))
stats.P(stats.Die('D', 6) > 3), stats.E(stats.Normal('Z', 0, 1)), stats.variance(stats.Die('D', 6))
diophantine(x**2 - 2*y**2 - 1)
Interval(0, 1) & Interval(S.Half, 2), FiniteSet(1, 2) | {3}, reduce_inequalities([x > 1, x < 3], x)
Piecewise((x, x > 0), (0, True)).subs(x, 1), maximum(x*(1 - x), x, Interval(0, 1))
continued_fraction(Rational(3, 7)), ntheory.modular.crt([3, 5], [1, 2])
combinatorics.Permutation([1, 0, 2]).order(), combinatorics.SymmetricGroup(3).order()
discrete_log(7, 4, 3), lambdify(x, x**2, 'math')(3)
re(1 + I), arg(1 + I), Rational(1, 3).evalf(20), gamma(5)
linsolve([x + y - 1, x - y], x, y), nonlinsolve([x**2 - 1, y - x], [x, y]), ask(Q.prime(7))
"""


def everything() -> None:
    """Imports the submodules and runs the warm-up.

    Raises:
        ImportError: sympy is not installed.
    """
    sympy = importlib.import_module("sympy")
    importlib.import_module("sympy.abc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # modules that warn of being old
        for name in SUBMODULES:
            for module in _all_of(importlib.import_module(f"sympy.{name}")):
                importlib.import_module(module)
    names = dict(vars(sympy))
    x, y, k, n = sympy.symbols("x y k n")
    names.update(x=x, y=y, k=k, n=n, f=sympy.Function("f"), g=sympy.Function("g"))
    for name in ("stats", "combinatorics", "ntheory"):
        names[name] = importlib.import_module(f"sympy.{name}")
    exec(WARM_UP, names)
    random.seed(0)
    importlib.import_module("sympy.core.random").seed(0)


def _all_of(package: ModuleType) -> Iterator[str]:
    """Names of the modules under a package, without the skipped ones."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        short = found.name.removeprefix("sympy.")
        if short in LEFT_OUT or short.rpartition(".")[2] in LEFT_OUT:
            continue
        yield found.name
        if found.ispkg:
            yield from _all_of(importlib.import_module(found.name))
