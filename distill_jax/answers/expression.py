r"""Reading a formula, in LaTeX or as programs print it, into a tree of known operations.

Nothing is evaluated here. What has more than one reading, or none, raises `Unreadable`.
"""

from typing import NamedTuple, NoReturn

from distill_jax.answers.tokens import (
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    OF_TWO,
    TRIG,
    Ambiguous,
    Unreadable,
    tokens_of,
)

MAX_DEPTH = 50

_CLOSING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
# Letters that name functions when a bracket follows: f(2) is not f times 2.
_FUNCTION_LETTERS = frozenset("f g h F G H P zeta Gamma phi sigma tau psi mu eta".split())


class Node(NamedTuple):
    """An operation on others. Numbers and names carry their text instead.

    Attributes:
        kind: "number", "name", "pi", "e", "i", "inf", an operator, or a function's name.
        children: of the operation.
        text: of a number or name.
    """

    kind: str
    children: tuple["Node", ...] = ()
    text: str = ""


def read_expression(text: str) -> Node:
    """The tree of a tidy text.

    Raises:
        Unreadable: signs that are not known, brackets that do not match, several readings, or more
            than MAX_TOKENS signs or MAX_DEPTH levels.
    """
    return _read(_Reader(tokens_of(text)))


def read_tokens(tokens: list[str]) -> Node:
    """The tree of a formula's tokens in prose: from the left, so that 6/2(3) is 9.

    Raises:
        Unreadable: as `read_expression`.
    """
    return _read(_Reader(tokens, left_to_right=True))


def _read(reader: "_Reader") -> Node:
    if not reader.tokens:
        raise Unreadable("nothing to read")
    node = reader.sum()
    if reader.peek():
        raise Unreadable(f"cannot read {reader.peek()!r} here")
    return node


def names(node: Node) -> set[str]:
    """The variables of a tree."""
    found = {node.text} if node.kind == "name" else set()
    return found.union(*(names(child) for child in node.children))


def renamed(node: Node, old: Node, new: Node) -> Node:
    """The tree with one leaf put for another."""
    if node == old:
        return new
    return node._replace(children=tuple(renamed(child, old, new) for child in node.children))


def with_log(node: Node, kind: str) -> Node:
    r"""The tree with \log of no base as "ln" or "lg"."""
    children = tuple(with_log(child, kind) for child in node.children)
    return Node(kind if node.kind == "log" else node.kind, children, node.text)


def kinds(node: Node) -> set[str]:
    """The kinds of operation in a tree."""
    return {node.kind}.union(*(kinds(child) for child in node.children))


class _Reader:
    """Recursive descent; the position is the only state."""

    def __init__(self, tokens: list[str], left_to_right: bool = False):
        self.tokens, self.place, self.depth, self.bars = tokens, 0, 0, 0
        self.left_to_right = left_to_right

    def peek(self, ahead: int = 0) -> str:
        at = self.place + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.place += 1
        return token

    def accept(self, token: str) -> bool:
        """Whether this is the next token, which is read then."""
        found = self.peek() == token
        self.place += found
        return found

    def fail(self, wanted: str) -> NoReturn:
        raise Unreadable(f"got {self.peek() or 'the end'!r}, wanted {wanted}")

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(token)

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"more than {MAX_DEPTH} levels")
        node = self.product()
        while self.peek() in ("+", "-"):
            kind = self.next()
            node = Node(kind, (node, self.product()))
        self.depth -= 1
        return node

    def product(self) -> Node:
        node = self.signed()
        divided = False
        while True:
            token = self.peek()
            if token in ("*", "\\cdot", "/"):
                self.next()
                divided = token == "/"
                node = Node("/" if divided else "*", (node, self.signed()))
            elif self.starts_factor():
                if divided and not self.left_to_right:
                    raise Ambiguous("a/bc is (a/b)c or a/(bc)")
                behind_factorial = self.place > 0 and self.tokens[self.place - 1] in ("!", "!!")
                if self.peek()[0] in "0123456789." and not behind_factorial:
                    raise Unreadable("a number behind a factor")
                node = Node("*", (node, self.power()))
            else:
                return node

    def signed(self) -> Node:
        token = self.peek()
        if token in ("-", "+"):
            self.next()
            node = self.signed()
            return Node("neg", (node,)) if token == "-" else node
        return self.power()

    def starts_factor(self) -> bool:
        token = self.peek()
        if token == "|":
            return self.bars == 0
        name = token.removeprefix("\\")
        return (
            token in ("(", "[", "{", "\\frac", "\\sqrt", "\\binom", "\\lfloor", "\\lceil")
            or token in CONSTANTS
            or name in FUNCTIONS
            or name in OF_TWO
            or (token[:1].isalnum() and token.isascii())
            or name in GREEK
        )

    def power(self) -> Node:
        base = self.postfix(self.mixed(self.atom()))
        if not self.accept("^"):
            return base
        if self.accept("\\circ"):
            return self.postfix(Node("degree", (base,)))
        if self.peek() == "{" and self.peek(1) == "\\circ" and self.peek(2) == "}":
            self.place += 3
            return self.postfix(Node("degree", (base,)))
        return self.postfix(Node("^", (base, self.exponent())))

    def mixed(self, whole: Node) -> Node:
        r"""2\frac{1}{2} is 2 + 1/2; 2\frac{x}{2} and 0.5\frac{1}{2} are products."""
        start, tokens = self.place, self.tokens.copy()  # \\frac12 takes its tokens apart
        divided = tokens[start - 2 : start - 1] == ["/"]
        if whole.text.isdigit() and self.peek() == "\\frac" and not divided:
            part = self.atom()
            if all(child.kind == "number" for child in part.children) and self.peek() != "^":
                return Node("+", (whole, part))
            self.place, self.tokens = start, tokens
        return whole

    def exponent(self) -> Node:
        if self.accept("-"):
            return Node("neg", (self.exponent(),))
        node = self.postfix(self.atom())
        if self.accept("^"):
            return Node("^", (node, self.exponent()))
        return node

    def postfix(self, node: Node) -> Node:
        while self.peek() in ("!", "!!", "%"):
            kind = {"!": "factorial", "!!": "factorial2", "%": "hundredth"}[self.next()]
            node = Node(kind, (node,))
        return node

    def atom(self) -> Node:
        token = self.next()
        name = token.removeprefix("\\")
        if token[:1].isdigit() or (token[:1] == "." and len(token) > 1):
            if self.peek() == "_":
                raise Unreadable("a number with an index")
            return Node("number", text=token)
        if token in _CLOSING:
            return self.bracketed(token)
        if token == "|":
            return self.bar()
        if name in ("frac", "binom") and token[0] == "\\":
            kind = "/" if name == "frac" else "binom"
            return Node(kind, (self.argument(), self.argument()))
        if token in ("\\lfloor", "\\lceil"):
            inner = self.sum()
            self.expect(token.replace("l", "r", 1))
            return Node("floor" if name == "lfloor" else "ceil", (inner,))
        if token in CONSTANTS and self.peek() != "_":
            return Node(CONSTANTS[token])
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in OF_TWO:
            return self.of_two(OF_TWO[name])
        if (token.isalpha() and token.isascii()) or name in GREEK:
            return self.variable(name)
        self.place -= 1
        self.fail("a number, a name or a bracket")

    def bracketed(self, opening: str) -> Node:
        inner = self.sum()
        self.expect(_CLOSING[opening])
        return inner

    def bar(self) -> Node:
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect("|")
        return Node("abs", (inner,))

    def argument(self) -> Node:
        r"""One argument of \frac: a group, or a single digit or letter."""
        if self.accept("{"):
            return self.bracketed("{")
        token = self.peek()
        if token.isdigit():
            # \frac12 is 1/2: TeX takes one digit.
            self.next()
            if len(token) > 1:
                self.place -= 1
                self.tokens[self.place] = token[1:]
            return Node("number", text=token[0])
        return self.atom()

    def root(self) -> Node:
        index = None
        if self.accept("["):
            index = self.bracketed("[")
        # √16 is 4, though TeX's \\sqrt16 would take one digit: nobody writes that for √1·6.
        inner = self.atom() if self.peek()[:1].isdigit() or self.peek() == "(" else self.argument()
        return Node("sqrt", (inner,)) if index is None else Node("root", (inner, index))

    def function(self, kind: str) -> Node:
        base = power = None
        while self.peek() in ("_", "^"):
            if self.next() == "_":
                base = self.argument()
            else:
                power = self.exponent()
        if base is not None and kind != "log":
            raise Unreadable(f"{kind} with an index")
        argument, second = self.function_argument()
        if kind == "log" and (base or second):
            base = base or second
            assert base is not None
            node = Node("/", (Node("ln", (argument,)), Node("ln", (base,))))
        elif second is not None:
            raise Unreadable(f"{kind} of two values")
        else:
            node = Node(kind, (argument,))
        if power == Node("neg", (Node("number", text="1"),)) and kind in TRIG:
            return Node("a" + kind, (argument,))
        return Node("^", (node, power)) if power is not None else node

    def function_argument(self) -> tuple[Node, Node | None]:
        if self.peek() in ("(", "[", "{"):
            closing = _CLOSING[self.next()]
            inner = self.sum()
            second = None
            if self.accept(","):
                second = self.sum()
            self.expect(closing)
            return inner, second
        if self.accept("-"):
            return Node("neg", (self.function_argument()[0],)), None
        # \sin 2x is sin(2x), and ends before the next function.
        node = self.power()
        while self.starts_factor() and self.peek().removeprefix("\\") not in FUNCTIONS:
            if self.peek() in ("(", "["):
                raise Ambiguous("a bracket behind a function's argument")
            node = Node("*", (node, self.power()))
        return node, None

    def of_two(self, kind: str) -> Node:
        if self.peek() not in ("(", "{"):
            self.fail("(")
        opening = self.next()
        parts = [self.sum()]
        if opening == "{":
            self.expect("}")
            parts.append(self.argument())
            return Node(kind, tuple(parts))
        while self.accept(","):
            parts.append(self.sum())
        self.expect(")")
        if len(parts) != 2 and kind not in ("max", "min", "gcd", "lcm"):
            raise Unreadable(f"{kind} of {len(parts)} values")
        return Node(kind, tuple(parts))

    def variable(self, name: str) -> Node:
        if self.peek() == "'":
            raise Unreadable("a derivative")
        if self.accept("_"):
            name += "_" + self.index()
        elif name == "C" and (pair := self.pair()) is not None:
            return Node("binom", pair)
        elif name in _FUNCTION_LETTERS and self.peek() == "(":
            raise Unreadable(f"the function {name}")
        return Node("name", text=name)

    def pair(self) -> tuple[Node, Node] | None:
        """(n, k) of C(n, k); None where what follows is something else, and nothing is read."""
        start, depth = self.place, self.depth
        if not self.accept("("):
            return None
        first = self.sum()
        if not self.accept(","):
            self.place, self.depth = start, depth
            return None
        second = self.sum()
        self.expect(")")
        return first, second

    def index(self) -> str:
        if not self.accept("{"):
            return self.next()
        parts = []
        while self.peek() not in ("}", ""):
            parts.append(self.next())
        self.expect("}")
        return "".join(parts)
