"""Reading the `data` of a usage event: by path, and so that 5, 5.0 and "true" mean one thing each."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from engine.events import is_text
from engine.money import NotADecimal, parse_quantity

TAGS: Final = "tags"
TAGS_MAX: Final = 16
TAG_TEXT_MAX: Final = 128

Key = str | int  # what a value is compared by: a text, or nano-units


def value_at(data: Mapping[str, Any], path: str) -> Any:
    """The value of a field; None where it is missing or null. `tags.team` is the field of that very name; where there is
    none, the field `team` of the object `tags`."""
    value = data.get(path)
    if value is None and "." in path:
        outer, _, inner = path.partition(".")
        inside = data.get(outer)
        if type(inside) is dict:
            return value_at(inside, inner)
    return value


def tags_of(data: Mapping[str, Any]) -> dict[str, str] | None:
    """The event's free tags, to be told with what it is charged; None where `tags` is not a small object of short texts."""
    tags = data.get(TAGS)
    if type(tags) is not dict or not 0 < len(tags) <= TAGS_MAX:
        return None
    return tags if all(is_text(text, TAG_TEXT_MAX) for pair in tags.items() for text in pair) else None


def key_of(value: Any) -> Key:
    """What a value of an event is compared by. Raises NotADecimal if it is no text, truth value or number."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int or isinstance(value, Decimal):
        return parse_quantity(value)
    raise NotADecimal(f"a {type(value).__name__} is neither text, number nor truth value")


def keys_of(texts: Iterable[str]) -> dict[Key, str]:
    """The keys of every value that one of these texts of a catalogue stands for, each with its text."""
    keys: dict[Key, str] = {}
    for text in texts:
        keys[text] = text
        try:
            keys[parse_quantity(text)] = text
        except NotADecimal:
            continue
    return keys


def as_sent(texts: Iterable[str]) -> Iterator[str | Decimal]:
    """What an event may hold where a check says one of these texts: the text, or the number that it reads as."""
    for text in texts:
        yield text
        try:
            parse_quantity(text)
        except NotADecimal:
            continue
        yield Decimal(text)
