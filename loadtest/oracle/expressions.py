"""What an expression of a catalogue comes to for one event: read from left to right each time, in exact fractions."""

import re
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor
from typing import Any

from loadtest.oracle.records import fixed_point

PARTS = re.compile(r'[0-9.]+|[A-Za-z_][A-Za-z0-9_.]*|"[^"]*"|[-+*/(),]')


class NoValueError(Exception):
    """A field is missing or no number, or a division is by zero."""


def field_of(data: Mapping[str, Any], path: str) -> object:
    """A field by its name, or else by a path through objects; None where it is missing or null."""
    if data.get(path) is None and "." in path:
        first, _, rest = path.partition(".")
        inside = data.get(first)
        return field_of(inside, rest) if isinstance(inside, dict) else None
    return data.get(path)


def names_in(text: str) -> set[str]:
    """Every name in it, those of functions too."""
    return {part.strip('"') for part in PARTS.findall(text) if part[0].isalpha() or part[0] in '_"'}


def nano_of(text: str, data: Mapping[str, Any]) -> int:
    """Its value in nano-units, rounded half-even. Raises NoValueError."""
    reading = _Reading(PARTS.findall(text), data)
    return round(reading.sum(True) * 10**9)


class _Reading:
    """One walk over the parts. What is read with `wanted` False is passed over: it may have no value."""

    def __init__(self, parts: list[str], data: Mapping[str, Any]) -> None:
        self._parts = [*parts, ""]
        self._data = data

    def _take(self, *parts: str) -> str:
        """The next part, if it is one of these (or any, if none are named)."""
        return self._parts.pop(0) if not parts or self._parts[0] in parts else ""

    def sum(self, wanted: bool) -> Fraction:
        total = self._product(wanted)
        while sign := self._take("+", "-"):
            total += self._product(wanted) * (1 if sign == "+" else -1)
        return total

    def _product(self, wanted: bool) -> Fraction:
        total = self._factor(wanted)
        while sign := self._take("*", "/"):
            factor = self._factor(wanted)
            if sign == "/" and not factor:
                if wanted:
                    raise NoValueError
                factor = Fraction(1)
            total = total * factor if sign == "*" else total / factor
        return total

    def _factor(self, wanted: bool) -> Fraction:
        part = self._take()
        if part == "-":
            return -self._factor(wanted)
        if part == "(":
            inside = self.sum(wanted)
            self._take(")")
            return inside
        if part[0].isdigit():
            return Fraction(part)
        if self._take("("):
            return self._function(part, wanted)
        return self._field(part.strip('"'), wanted)

    def _function(self, name: str, wanted: bool) -> Fraction:
        if name == "default":
            path = self._take().strip('"')
            self._take(",")
            there = field_of(self._data, path) is not None
            otherwise = self.sum(wanted and not there)
            self._take(")")
            return self._field(path, wanted) if there else otherwise
        arguments = [self.sum(wanted)]
        while self._take(","):
            arguments.append(self.sum(wanted))
        self._take(")")
        if name in ("floor", "ceil"):
            return Fraction(floor(arguments[0]) if name == "floor" else ceil(arguments[0]))
        return min(arguments) if name == "min" else max(arguments)

    def _field(self, path: str, wanted: bool) -> Fraction:
        value = field_of(self._data, path)
        number = fixed_point(value, 9) if isinstance(value, str) else None
        if number is None and wanted:
            raise NoValueError
        return Fraction(number or 0, 10**9)
