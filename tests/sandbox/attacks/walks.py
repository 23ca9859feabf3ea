"""From harmless objects to the builtins: dunders, frames, formats, patterns, the module graph."""

from tests.sandbox.attacks.program import Attack

ATTACKS = [
    Attack(
        "walk-subclasses",
        r"""
for c in ().__class__.__base__.__subclasses__():
    if c.__name__ == "_wrap_close":
        c.__init__.__globals__["mkdir"]("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "walk-print-self",
        "print.__self__.open('@CANARY@/a', 'w').write('x')",
        works_bare=True,
    ),
    Attack(
        "walk-method-self-getattr",
        r"""
b = getattr(abs, "__se" + "lf__")
getattr(b, "__imp" + "ort__")("os").mkdir("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "walk-function-globals",
        r"""
def f():
    return 0
g = f.__globals__["__builtins__"]
g = g if isinstance(g, dict) else vars(g)
g["__import__"]("os").mkdir("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "walk-globals-call",
        r"""
b = globals()["__builtins__"]
b = b if isinstance(b, dict) else vars(b)
b["open"]("@CANARY@/a", "w")
""",
        works_bare=True,
    ),
    Attack(
        "frame-traceback",
        r"""
try:
    1 / 0
except ZeroDivisionError as e:
    e.__traceback__.tb_frame.f_builtins["__import__"]("os").mkdir("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "frame-traceback-without-dunder",
        r"""
def f():
    1 / 0
try:
    f()
except ZeroDivisionError as e:
    import fractions
    t = fractions.sys.exc_info()[2]
    t.tb_frame.f_builtins["open"]("@CANARY@/a", "w")
""",
        works_bare=True,
    ),
    Attack(
        "frame-generator",
        r"""
g = (g.gi_frame.f_builtins for _ in [0])
next(g)["open"]("@CANARY@/a", "w")
""",
        works_bare=True,
    ),
    Attack(
        "frame-generator-callers",
        r"""
def look():
    yield g.gi_frame.f_back
g = look()
f = next(g)
seen = []
while f is not None:
    seen.append(repr(f.f_globals) + repr(f.f_locals))
    o = f.f_globals.get("os") or f.f_locals.get("os")
    if o is not None:
        o.mkdir("@CANARY@/a")
    f = f.f_back
print(seen)
""",
    ),
    Attack(
        "frame-coroutine",
        r"""
async def f():
    return 0
c = f()
c.cr_frame.f_builtins["open"]("@CANARY@/a", "w")
""",
        works_bare=True,
    ),
    Attack(
        "frame-outer-builtins-patched",
        r"""
import fractions
f = fractions.sys._getframe()
while f.f_back is not None:
    f = f.f_back
    f.f_builtins["len"] = lambda x: 41
    f.f_builtins["print"] = lambda *a, **k: None
""",
    ),
    Attack(
        "format-module-environment",
        "import fractions\nprint('{0.sys.modules[os].environ}'.format(fractions))",
        works_bare=True,
    ),
    Attack(
        "format-main-module",
        r"""
import fractions
print("{0.sys.modules[__main__].__dict__}".format(fractions))
print("{0.sys.argv} {0.sys.flags}".format(fractions))
""",
    ),
    Attack(
        "format-map-environment",
        r"""
import fractions
class D(dict):
    def __missing__(self, key):
        return fractions
print("{f.sys.modules[os].environ}".format_map(D()))
""",
        works_bare=True,
    ),
    Attack(
        "format-string-formatter",
        r"""
import sympy
class F:
    def __format__(self, spec):
        return spec.format(sympy)
print(f"{F():{'{0.external.gmpy.os.environ}'}}")
print(f"{sympy.external.gmpy.os.mkdir('@CANARY@/a')}")
""",
        works_bare=True,
    ),
    Attack(
        "match-class-pattern",
        r"""
import fractions
match fractions:
    case object(sys=s):
        match s.modules["os"]:
            case object(mkdir=m):
                m("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "match-dunder-pattern",
        r"""
match print:
    case object(__self__=b):
        match b:
            case object(open=o):
                o("@CANARY@/a", "w")
""",
        works_bare=True,
    ),
    Attack(
        "match-args-attribute",
        r"""
class P:
    __match_args__ = ("__self__",)
class M(type):
    def __instancecheck__(cls, thing):
        return True
class Q(P, metaclass=M):
    pass
match print:
    case Q(b):
        b.open("@CANARY@/a", "w")
""",
        works_bare=True,
    ),
    Attack(
        "graph-fractions-sys",
        "import fractions\nfractions.sys.modules['os'].mkdir('@CANARY@/a')",
        works_bare=True,
    ),
    Attack(
        "graph-fractions-from",
        "from fractions import sys\nsys.modules['os'].mkdir('@CANARY@/a')",
        works_bare=True,
    ),
    Attack(
        "graph-fractions-re-enum",
        "import fractions\nfractions.re.enum.bltns.open('@CANARY@/a', 'w')",
        works_bare=True,
    ),
    Attack(
        "graph-attrgetter",
        r"""
import fractions
get = fractions.operator.attrgetter
for c in get("__class__.__base__")(()).__subclasses__():
    if "wrap_close" in repr(c):
        get("__init__.__globals__")(c)["mkdir"]("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "graph-methodcaller",
        r"""
import fractions as f
get = f.operator.attrgetter("sys.modules")
f.operator.methodcaller("mkdir", "@CANARY@/a")(get(f)["os"])
""",
        works_bare=True,
    ),
    Attack(
        "graph-sympy-gmpy",
        "import sympy\nsympy.external.gmpy.os.mkdir('@CANARY@/a')",
        works_bare=True,
    ),
    Attack(
        "graph-sympy-gmpy-from",
        "from sympy.external.gmpy import os as o\no.mkdir('@CANARY@/a')",
        works_bare=True,
    ),
    Attack(
        "graph-sympy-misc",
        "import sympy.utilities.misc as m\nm.sys.modules['posix'].mkdir('@CANARY@/a')",
        works_bare=True,
    ),
    Attack(
        "graph-sympy-import-module",
        r"""
from sympy.external import import_module
import_module("os").mkdir("@CANARY@/a")
""",
        works_bare=True,
    ),
    Attack(
        "graph-sympy-search",
        r"""
import sympy
seen, todo = set(), [sympy]
while todo:
    m = todo.pop(0)
    for name in dir(m):
        if name.startswith("_"):
            continue
        x = getattr(m, name, None)
        if type(x) is not type(sympy) or id(x) in seen:
            continue
        seen.add(id(x))
        todo.append(x)
        if hasattr(x, "mkdir") and hasattr(x, "fork"):
            x.mkdir("@CANARY@/a")
            todo = []
            break
""",
        works_bare=True,
    ),
    Attack(
        "graph-star-import",
        "from sympy.external.gmpy import *\nfrom sympy.testing.runtests import *\n"
        "import sympy\nsympy.testing.runtests.subprocess.run(['touch', '@CANARY@/a'])",
        works_bare=True,
    ),
    Attack(
        "site-license-reads-files",
        r"""
license._Printer__filenames = ["@SECRET@"]
license._Printer__lines = None
print(license)
""",
        works_bare=True,
    ),
    Attack(
        "eval-import",
        "eval(\"__import__('os').mkdir('@CANARY@/a')\")",
        works_bare=True,
    ),
    Attack(
        "exec-compile",
        "exec(compile(\"import os\\nos.mkdir('@CANARY@/a')\", 'x', 'exec'), {})",
        works_bare=True,
    ),
    Attack(
        "class-build-hook",
        r"""
class A:
    def __init_subclass__(cls, **k):
        import os
        os.mkdir("@CANARY@/a")
class B(A):
    pass
""",
        works_bare=True,
    ),
    Attack(
        "decorator-call",
        r"""
@eval
@lambda f: "__import__('os').mkdir('@CANARY@/a')"
def f():
    pass
""",
        works_bare=True,
    ),
    Attack(
        "unpickle",
        r"""
import pickle
pickle.loads(b"cos\nmkdir\n(S'@CANARY@/a'\ntR.")
""",
        works_bare=True,
    ),
]
