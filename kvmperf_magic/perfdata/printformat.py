"""The names that a tracepoint's `print fmt` gives to numbers: __print_symbolic and __print_flags.

`kvm_exit` prints `(REC->isa == 1) ? __print_symbolic(REC->exit_reason & 0xffff, { 12, "HLT" } ...)
: __print_symbolic(...)`. Such arguments are small C expressions; they are read and evaluated here
as libtraceevent does (event-parse.c: process_arg(), print_str_arg()).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Env = Mapping[str, int]
Value = int | str
Expression = Callable[[Env], Value]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>0[xX][0-9a-fA-F]{1,16}|\d{1,20})[uUlL]{0,3}\b
    |(?P<char>'(?:[^'\\]|\\.)')|(?P<field>REC->\w+)|(?P<word>[A-Za-z_]\w*)
    |(?P<op><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>?:(){},]))""",
    re.VERBOSE,
)
_NOT_SPACE = re.compile(r"\S")
_CONVERSION = re.compile(r"%(?:%|[-+ #0-9.*]*[hlzjtLq]*([a-zA-Z]))")
_NAMING = ("__print_symbolic", "__print_symbolic_u64", "__print_flags", "__print_flags_u64")
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0"}
_DEPTH = 40  # of brackets and of operators on fields in a row: far more than any kernel has
_MASK = (1 << 64) - 1


def _quotient(a: int, b: int) -> int:
    """As C divides: towards 0. What divides by 0 in the kernel would be a crash there; here it is
    0."""
    whole = abs(a) // abs(b) if b else 0
    return -whole if (a < 0) != (b < 0) else whole


# how tightly an operator binds, and what it does
_BINARY: dict[str, tuple[int, Callable[[int, int], int]]] = {
    "||": (0, lambda a, b: int(bool(a) or bool(b))),
    "&&": (1, lambda a, b: int(bool(a) and bool(b))),
    "|": (2, operator.or_),
    "^": (3, operator.xor),
    "&": (4, operator.and_),
    "==": (5, operator.eq),
    "!=": (5, operator.ne),
    "<": (6, operator.lt),
    ">": (6, operator.gt),
    "<=": (6, operator.le),
    ">=": (6, operator.ge),
    "<<": (7, lambda a, b: a << (b & 63)),
    ">>": (7, lambda a, b: a >> (b & 63)),
    "+": (8, operator.add),
    "-": (8, operator.sub),
    "*": (9, operator.mul),
    "/": (9, _quotient),
    "%": (9, lambda a, b: a - b * _quotient(a, b) if b else 0),
}
_UNARY: dict[str, Callable[[int], int]] = {
    "-": operator.neg,
    "~": operator.invert,
    "!": operator.not_,
    "+": operator.pos,
}


@dataclass(frozen=True)
class Naming:
    """The name of the number in field `field`, worked out from the fields `needs`."""

    field: str
    needs: tuple[str, ...]
    parts: tuple[Expression, ...]

    def name(self, env: Env) -> str:
        """As the tracepoint prints it for these values of the fields."""
        return "".join(str(part(env)) for part in self.parts)


def namings(print_format: str) -> list[Naming]:
    """The names that a `print fmt` gives, at most one a field.

    Conversions that touch (`reason %s%s%s`, `prev_state=%s%s`) belong to one name. An argument
    that cannot be read (an enum that the kernel did not resolve) gives no name.
    """
    arguments = _arguments(print_format)
    if not arguments or not any(f"{naming}(" in print_format for naming in _NAMING):
        return []
    found: dict[str, Naming] = {}
    for group in _touching("".join(_unquoted(s) for s in _strings_of(arguments[0]))):
        texts = [arguments[1 + i] for i in group if 1 + i < len(arguments)]
        for whole in (texts, *([text] for text in texts)):
            if any(naming in text for text in whole for naming in _NAMING):
                naming = _naming(whole)
                if naming:
                    found.setdefault(naming.field, naming)
                    break
    return list(found.values())


def _naming(texts: list[str]) -> Naming | None:
    try:
        parsers = [_Parser(text) for text in texts]
    except ValueError:
        return None
    named = [name for parser in parsers for name in parser.named]
    needs = tuple(dict.fromkeys(name for parser in parsers for name in parser.fields))
    if not named:
        return None
    return Naming(named[0], needs, tuple(parser.expression for parser in parsers))


def _strings_of(argument: str) -> list[str]:
    """The literals of an argument that is nothing but literals."""
    found, at = [], 0
    while (match := _TOKEN.match(argument, at)) and match["string"]:
        found.append(match["string"])
        at = match.end()
    return found


def _unquoted(literal: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), literal[1:-1])


def _arguments(text: str) -> list[str]:
    """Cut at the commas that stand in no bracket and no string."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            odd = _NOT_SPACE.search(text, at)
            if odd is None or odd[0] == '"':  # nothing more, or a string that does not end
                break
            at = odd.end()
            continue
        if match["op"]:
            depth += (match["op"] in "({") - (match["op"] in ")}")
            if match["op"] == "," and depth == 0:
                parts.append(text[start : match.end() - 1])
                start = match.end()
        at = match.end()
    return [*parts, text[start:]]


def _touching(format: str) -> list[list[int]]:
    """Runs of `%s` with nothing between, as numbers of arguments."""
    runs: list[list[int]] = []
    number, end = 0, -1
    for match in _CONVERSION.finditer(format):
        if match[1] is None:
            continue
        if match[1] == "s":
            if end == match.start():
                runs[-1].append(number)
            else:
                runs.append([number])
            end = match.end()
        number += 1 + match[0].count("*")
    return runs


class _Parser:
    """One argument as an expression. ValueError for what is not understood.

    `fields` are the fields it reads, `named` those that are in a naming's first argument.
    """

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at, text = 0, text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(f"{text[at : at + 20]!r} is not understood")
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind]))
            at = match.end()
        self._at = self._depth = self._operators = 0
        self.fields: list[str] = []
        self.named: list[str] = []
        self.expression = self._ternary()
        if self._at != len(self._tokens):
            raise ValueError("something is left over")

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ("", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _accept(self, op: str) -> bool:
        if self._peek() != ("op", op):
            return False
        self._at += 1
        return True

    def _expect(self, op: str) -> None:
        if not self._accept(op):
            raise ValueError(f"{op!r} is missing")

    def _ternary(self) -> Expression:
        self._depth += 1
        if self._depth > _DEPTH:
            raise ValueError("nested too deep")
        condition = self._binary(0)
        if self._accept("?"):
            yes = self._ternary()
            self._expect(":")
            no = self._ternary()
            asked = condition
            self._depth -= 1
            return lambda env: yes(env) if asked(env) else no(env)
        self._depth -= 1
        return condition

    def _binary(self, least: int) -> Expression:
        """Operators that bind at least this tightly, the tighter ones first."""
        left = self._unary()
        while self._peek()[0] == "op" and (found := _BINARY.get(self._peek()[1])):
            level, apply = found
            if level < least:
                break
            self._at += 1
            right = self._binary(level + 1)
            left = _applied(apply, left, right)
            self._operators += not isinstance(left, _Constant)
            if self._operators > _DEPTH:
                raise ValueError("too many operators")
        return left

    def _unary(self) -> Expression:
        signs: list[str] = []
        while self._peek() in (("op", "-"), ("op", "~"), ("op", "!"), ("op", "+")):
            signs.append(self._next()[1])
        value = self._primary()
        for sign in reversed(signs[-_DEPTH:]):
            value = _signed(sign, value)
        return value

    def _primary(self) -> Expression:
        kind, text = self._next()
        if kind == "number":
            octal = text[0] == "0" and len(text) > 1 and text[1] not in "xX"
            return _Constant(int(text, 8 if octal else 0))
        if kind == "string":
            literal = _unquoted(text)
            while self._peek()[0] == "string":
                literal += _unquoted(self._next()[1])
            return _Constant(literal)
        if kind == "char":
            return _Constant(ord(_unquoted(text)))
        if kind == "field":
            name = text.removeprefix("REC->")
            self.fields.append(name)
            return operator.itemgetter(name)
        if kind == "word" and text in _NAMING:
            return self._names(flags="flags" in text)
        if (kind, text) == ("op", "("):
            if self._is_cast():
                return self._unary_after_cast()
            inner = self._ternary()
            self._expect(")")
            return inner
        raise ValueError(f"{text!r} is not understood")

    def _is_cast(self) -> bool:
        """`(unsigned long)`: words, then perhaps stars."""
        ahead = 0
        while self._peek(ahead)[0] == "word" and self._peek(ahead)[1] not in _NAMING:
            ahead += 1
        words = ahead
        while self._peek(ahead) == ("op", "*"):
            ahead += 1
        return words > 0 and self._peek(ahead) == ("op", ")")

    def _unary_after_cast(self) -> Expression:
        while not self._accept(")"):
            self._at += 1
        self._depth += 1
        if self._depth > _DEPTH:
            raise ValueError("nested too deep")
        value = self._unary()
        self._depth -= 1
        return value

    def _names(self, *, flags: bool) -> Expression:
        """The arguments of __print_symbolic(value, {number, "name"}, ...) or __print_flags."""
        self._expect("(")
        before = len(self.fields)
        value = self._ternary()
        self.named += self.fields[before:]
        delimiter = ""
        if flags:
            self._expect(",")
            delimiter = str(self._constant(self._ternary()))
        table: list[tuple[int, str]] = []
        while self._accept(","):
            self._expect("{")
            if self._accept("}"):  # some kernels end the list with {}
                continue
            number = self._constant(self._ternary())
            self._expect(",")
            name = self._constant(self._ternary())
            self._expect("}")
            if not isinstance(number, int):
                raise ValueError("a name for what is no number")
            table.append((number & _MASK, str(name)))
        self._expect(")")
        return _flags(value, delimiter, table) if flags else _symbolic(value, table)

    @staticmethod
    def _constant(expression: Expression) -> Value:
        if not isinstance(expression, _Constant):
            raise ValueError("not a constant")
        return expression.value


@dataclass(frozen=True)
class _Constant:
    value: Value

    def __call__(self, env: Env) -> Value:
        return self.value


def _number(value: Value) -> int:
    return value if isinstance(value, int) else 0


def _wrapped(value: int) -> int:
    """A signed 64-bit number where it is too long for one of either kind."""
    return value if -(1 << 63) <= value <= _MASK else ((value + (1 << 63)) & _MASK) - (1 << 63)


def _applied(apply: Callable[[int, int], int], left: Expression, right: Expression) -> Expression:
    def both(env: Env) -> int:
        return _wrapped(int(apply(_number(left(env)), _number(right(env)))))

    if isinstance(left, _Constant) and isinstance(right, _Constant):
        return _Constant(both({}))
    return both


def _signed(sign: str, value: Expression) -> Expression:
    apply = _UNARY[sign]
    if isinstance(value, _Constant):
        return _Constant(int(apply(_number(value.value))))
    return lambda env: int(apply(_number(value(env))))


def _symbolic(value: Expression, table: list[tuple[int, str]]) -> Expression:
    names = dict(reversed(table))  # the first of two counts

    def symbolic(env: Env) -> str:
        number = _number(value(env)) & _MASK
        return names.get(number, f"{number:#x}")

    return symbolic


def _flags(value: Expression, delimiter: str, table: list[tuple[int, str]]) -> Expression:
    def flags(env: Env) -> str:
        left = _number(value(env)) & _MASK
        said = []
        for mask, name in table:
            if mask and left & mask == mask:
                said.append(name)
                left &= ~mask
        return delimiter.join([*said, f"{left:#x}"] if left else said)

    return flags
