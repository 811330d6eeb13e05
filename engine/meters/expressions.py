"""Numeric expressions over an event's fields, exact to the last digit (law M1): compiled once, when a catalogue is loaded.

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "/") factor }
    factor  = "-" factor | number | field | "(" sum ")" | function "(" sum { "," sum } ")"

A number is a plain decimal. A field is a path of `data` (`input_tokens`, `usage.cached`); one with other signs than
letters, digits, `_` and dots stands in double quotes. Functions: min, max (one or more), floor, ceil (one), and
default(field, value): the value where the field is missing. A division is exact, never rounded.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final, NamedTuple

from engine.meters.fields import value_at
from engine.money import NANO, NotADecimal, parse_quantity

TEXT_MAX: Final = 1_000  # characters
PARTS_MAX: Final = 100  # numbers, fields, operators: what one event may cost
DEPTH_MAX: Final = 20

Number = int | Fraction  # exact, in whole units
Evaluate = Callable[[Mapping[str, Any]], Number]

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>[0-9][0-9.]*)|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)"
    r'|"(?P<quoted>[^"\x00]{1,128})"|(?P<sign>[-+*/(),]))',
    re.ASCII,
)


class BadExpression(ValueError):
    """The text is no expression. `position` counts characters from 1."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"at character {position}: {message}")
        self.position = position


class NoValue(ValueError):
    """The expression has no value for this event; the message names the field."""


class Expression(NamedTuple):
    """`of` gives its exact value for an event, or raises NoValue."""

    text: str
    fields: frozenset[str]
    of: Evaluate


class _Token(NamedTuple):
    kind: str  # number, name, quoted, sign, end
    text: str
    position: int


def compile_expression(text: str) -> Expression:
    """Raises BadExpression."""
    if len(text) > TEXT_MAX:
        raise BadExpression(TEXT_MAX + 1, f"an expression has at most {TEXT_MAX} characters")
    parser = _Parser(_tokens(text))
    evaluate = parser.whole()
    return Expression(text, frozenset(parser.fields), evaluate)


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise BadExpression(at + 1, f"{text[at]!r} has no meaning here")
        tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1))
        position = match.end()
    if len(tokens) > PARTS_MAX:
        raise BadExpression(tokens[PARTS_MAX].position, f"an expression has at most {PARTS_MAX} parts")
    return [*tokens, _Token("end", "", len(text) + 1)]


class _Parser:
    """Recursive descent: each method reads one rule of the grammar and returns what evaluates it."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.fields: list[str] = []  # as they are read
        self._tokens = tokens
        self._next = 0

    def whole(self) -> Evaluate:
        found = self._sum(1)
        if self._here.kind != "end":
            raise self._unexpected()
        return found

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._here
        self._next += 1
        return token

    def _unexpected(self) -> BadExpression:
        token = self._here
        found = f"{token.text!r} is not expected here" if token.text else "the expression ends too early"
        return BadExpression(token.position, found)

    def _is(self, signs: str) -> bool:
        return self._here.kind == "sign" and self._here.text in signs

    def _expect(self, sign: str) -> None:
        if not self._is(sign):
            raise self._unexpected()
        self._next += 1

    def _sum(self, depth: int) -> Evaluate:
        if depth > DEPTH_MAX:
            raise BadExpression(self._here.position, f"is nested deeper than {DEPTH_MAX} levels")
        left = self._product(depth)
        while self._is("+-"):
            sign, right = self._take().text, self._product(depth)
            left = _added(left, right) if sign == "+" else _subtracted(left, right)
        return left

    def _product(self, depth: int) -> Evaluate:
        left = self._factor(depth)
        while self._is("*/"):
            sign, read = self._take().text, len(self.fields)
            right = self._factor(depth)
            left = _multiplied(left, right) if sign == "*" else _divided(left, right, self.fields[read:])
        return left

    def _factor(self, depth: int) -> Evaluate:
        if depth > DEPTH_MAX:
            raise BadExpression(self._here.position, f"is nested deeper than {DEPTH_MAX} levels")
        if self._is("-"):
            self._next += 1
            return _subtracted(_constant(0), self._factor(depth + 1))
        if self._is("("):
            self._next += 1
            inside = self._sum(depth + 1)
            self._expect(")")
            return inside
        token = self._here
        if token.kind == "number":
            self._next += 1
            return _constant(self._number(token))
        if token.kind in ("name", "quoted"):
            self._next += 1
            return self._call(token, depth) if token.kind == "name" and self._is("(") else self._field(token)
        raise self._unexpected()

    @staticmethod
    def _number(token: _Token) -> Number:
        try:
            return _units(parse_quantity(token.text))
        except NotADecimal as error:
            raise BadExpression(token.position, str(error)) from error

    def _field(self, token: _Token) -> Evaluate:
        self.fields.append(token.text)
        return _field(token.text)

    def _call(self, function: _Token, depth: int) -> Evaluate:
        self._expect("(")
        if function.text == "default":
            return self._default(depth)
        arguments = [self._sum(depth + 1)]
        while self._is(","):
            self._next += 1
            arguments.append(self._sum(depth + 1))
        self._expect(")")
        if function.text in ("min", "max"):
            return _chosen(min if function.text == "min" else max, arguments)
        if function.text not in ("floor", "ceil"):
            raise BadExpression(
                function.position,
                f"there is no function {function.text!r}; there are min, max, floor, ceil and default",
            )
        if len(arguments) != 1:
            raise BadExpression(function.position, f"{function.text} takes one argument")
        return _rounded(floor if function.text == "floor" else ceil, arguments[0])

    def _default(self, depth: int) -> Evaluate:
        token = self._take()
        if token.kind not in ("name", "quoted"):
            raise BadExpression(token.position, "default takes a field and the value where it is missing")
        self.fields.append(token.text)
        self._expect(",")
        otherwise = self._sum(depth + 1)
        self._expect(")")
        return _default(token.text, otherwise)


def _units(nano: int) -> Number:
    return nano // NANO if nano % NANO == 0 else Fraction(nano, NANO)


def _constant(value: Number) -> Evaluate:
    return lambda data: value


def _field(path: str) -> Evaluate:
    def evaluate(data: Mapping[str, Any]) -> Number:
        try:
            return _units(parse_quantity(value_at(data, path)))
        except NotADecimal as error:
            raise NoValue(f"data.{path}: {error}") from error

    return evaluate


def _default(path: str, otherwise: Evaluate) -> Evaluate:
    field = _field(path)
    return lambda data: otherwise(data) if value_at(data, path) is None else field(data)


def _added(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda data: left(data) + right(data)


def _subtracted(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda data: left(data) - right(data)


def _multiplied(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda data: left(data) * right(data)


def _divided(left: Evaluate, right: Evaluate, fields: list[str]) -> Evaluate:
    by = ", ".join(f"data.{path}" for path in fields) or "0"

    def evaluate(data: Mapping[str, Any]) -> Number:
        dividend, divisor = left(data), right(data)
        if not divisor:
            raise NoValue(f"{by}: a division by zero")
        return Fraction(dividend, divisor)

    return evaluate


def _chosen(choose: Callable[[list[Number]], Number], arguments: list[Evaluate]) -> Evaluate:
    return lambda data: choose([argument(data) for argument in arguments])


def _rounded(whole: Callable[[Number], int], argument: Evaluate) -> Evaluate:
    return lambda data: whole(argument(data))
