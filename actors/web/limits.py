"""What a request may be at most, and what JSON may hold. Tested before a typed decoder sees a byte.

The standard library's scanner (C) is asked first, because it shows every key and number as written: duplicates, long
numbers, NUL and lone surrogates are what a typed decoder passes over in silence or what a database chokes on later.
"""

import json
import re
from typing import Final

HEADERS_MAX: Final = 64
HEADER_BYTES_MAX: Final = 16_384
URL_BYTES_MAX: Final = 2_048
PARAM_CHARACTERS_MAX: Final = 256
QUERY_PARAMETERS_MAX: Final = 16
JSON_DEPTH_MAX: Final = 16
JSON_KEYS_MAX: Final = 64
JSON_STRING_MAX: Final = 8_192
JSON_NUMBER_MAX: Final = 64  # characters; 18 digits before the point and 12 behind it are all that any field takes
JSON_EXPONENT_MAX: Final = 18

# One that does not end is taken to the end of the body: looked for again from each quote in it, it would take the square.
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_OPEN: Final = frozenset(b"[{")
_CLOSE: Final = frozenset(b"]}")


class JsonRefused(ValueError):
    """The text is no JSON, or holds more than is taken. The message is for the caller."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > JSON_KEYS_MAX:
        raise JsonRefused(f"an object has {len(pairs)} keys; {JSON_KEYS_MAX} is the limit")
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonRefused(f"the key {twice[:64]!r} stands twice in one object")
    return found


def check_number(text: str) -> None:
    """Raises JsonRefused for one that no field could take, before anybody works out what it comes to."""
    if len(text) > JSON_NUMBER_MAX:
        raise JsonRefused(f"a number has {len(text)} characters; {JSON_NUMBER_MAX} is the limit")
    exponent = text.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > JSON_EXPONENT_MAX:
        raise JsonRefused(f"a number has an exponent beyond {JSON_EXPONENT_MAX}: write it out")


def refuse_constant(name: str) -> None:
    """Raises JsonRefused."""
    raise JsonRefused(f"{name} is no JSON number")


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=check_number, parse_float=check_number, parse_constant=refuse_constant
)


def check_json(body: bytes) -> None:
    """Raises JsonRefused unless `body` is one JSON value within the limits."""
    if body.count(b"{") + body.count(b"[") > JSON_DEPTH_MAX:
        _check_depth(body)
    try:
        text = body.decode()
        value = _decoder.decode(text)
    except UnicodeDecodeError as error:
        raise JsonRefused(f"the body is not UTF-8, at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise JsonRefused(f"the body is not JSON: {error.msg}, at character {error.pos}") from None
    except RecursionError:
        raise JsonRefused(f"the body is nested deeper than {JSON_DEPTH_MAX}") from None
    if len(text) > JSON_STRING_MAX or "\\u" in text:
        _check_strings(value)


def _check_depth(body: bytes) -> None:
    depth = 0
    for byte in _STRINGS.sub(b"", body):
        if byte in _OPEN:
            depth += 1
            if depth > JSON_DEPTH_MAX:
                raise JsonRefused(f"the body is nested deeper than {JSON_DEPTH_MAX}")
        elif byte in _CLOSE:
            depth -= 1


def _check_strings(value: object) -> None:
    if isinstance(value, str):
        if len(value) > JSON_STRING_MAX:
            raise JsonRefused(f"a string has {len(value)} characters; {JSON_STRING_MAX} is the limit")
        if not clean(value):
            raise JsonRefused("a string holds NUL or half of a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)


def clean(text: str) -> bool:
    """Whether Postgres and UTF-8 can hold it: no NUL, no lone surrogate."""
    if text.isascii():
        return "\x00" not in text
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
