"""What a record says: keys, usage events, control records, hold tokens; numbers as they are written."""

import base64
import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard

SECOND_US = 1_000_000
WHOLE_DIGITS_READ_MAX = 4300
KEY_BYTES_MAX = 256
TEXT_CHARACTERS_MAX = 256
DATA_FIELDS_MAX = 64
TOKEN_CHARACTERS_MAX = 4096
TOKEN_MAC_BYTES = 16
CONTROL_PREFIX = b"TGC1"
MAC_BYTES = 32
NESTED_MAX, CARRIED = 64, 2  # objects and lists inside one another; and around an event that stands in another's data
CARRYING = ("tallygate.cancel", "tallygate.amend")
SCOPE = re.compile(r"[A-Za-z0-9._:@-]{1,64}(/[A-Za-z0-9._:@-]{1,64}){0,7}", re.ASCII)


class DeadLetterError(Exception):
    """The record is not applied; the message is the reason's wire name."""


class RefusedError(Exception):
    """The command is not applied; the message is the reason's wire name."""


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit hash of a key, with the sign bit cleared."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    whole = len(data) - len(data) % 4
    result = 0x9747B28C ^ len(data)
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        result = result * multiplier & mask ^ word
    if whole < len(data):
        result = (result ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    result = (result ^ result >> 13) * multiplier & mask
    return (result ^ result >> 15) & 0x7FFFFFFF


@lru_cache(maxsize=100_000)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner names it."""
    return murmur2(key) % partitions


class Number(str):
    """A JSON number as it was written."""


PLAIN_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
ANY_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


def fixed_point(text: str, digits: int) -> int | None:
    """`text` times 10 ** digits; None when it is not a plain number of at most 18 digits and `digits` decimals."""
    match = PLAIN_NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimals = match[1], match[2], match[3] or ""
    if len(whole) > 18 or len(decimals) > digits:
        return None
    value = int(whole + decimals.ljust(digits, "0"))
    return -value if sign else value


def pico_of(text: str) -> int | None:
    """An amount in pico-units, or None when it is not one."""
    return fixed_point(text, 12)


def refuse_constant(constant: str) -> None:
    raise ValueError(constant)


def whole_number(text: str) -> Number:
    if len(text.lstrip("-")) > WHOLE_DIGITS_READ_MAX:
        raise ValueError("a whole number without end")
    return Number(text)


JSON = json.JSONDecoder(parse_int=whole_number, parse_float=Number, parse_constant=refuse_constant)


def read_json(data: bytes, nested_max: int = NESTED_MAX) -> object:
    """A JSON document with its numbers as written. ValueError when it is not JSON, or holds what is no text."""

    text = data.decode("utf-8")
    if nesting(text) > nested_max:
        raise ValueError("nested too deeply")
    document = JSON.decode(text)
    if "\\ud" in text or "\\uD" in text:
        # An escaped half of a surrogate pair is no character: encoding the strings finds it.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    return document


def nesting(text: str) -> int:
    """How many objects and lists stand inside one another, where it may be more than are allowed."""
    if text.count("{") + text.count("[") <= NESTED_MAX:
        return 0
    depth, deepest, is_quoted, is_escaped = 0, 0, False, False
    for sign in text:
        if is_quoted:
            is_quoted, is_escaped = is_escaped or sign != '"', sign == "\\" and not is_escaped
        elif sign == '"':
            is_quoted = True
        elif sign in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "}]":
            depth -= 1
    return deepest


def canonical(value: object) -> object:
    """The same for two JSON values exactly when they mean the same: 5 and 5.0, keys in any order."""
    if isinstance(value, dict):
        return ("object", tuple(sorted((name, canonical(item)) for name, item in value.items())))
    if isinstance(value, list):
        return ("array", tuple(canonical(item) for item in value))
    if isinstance(value, Number):
        match = ANY_NUMBER.fullmatch(value)
        if match is None or len(match[4] or "") > 20:
            return ("number", str(value))
        digits = (match[2] + (match[3] or "")).lstrip("0")
        exponent = int(match[4] or 0) - len(match[3] or "")
        exponent += len(digits) - len(digits.rstrip("0"))
        digits = digits.rstrip("0")
        return ("number", match[1] + digits + "e" + str(exponent)) if digits else ("number", "0")
    if isinstance(value, str):
        return ("text", value)
    return ("literal", repr(value))


RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WALL_EPOCH = EPOCH.replace(tzinfo=None)  # wall clocks are compared and subtracted without a zone


def time_us_of(text: str) -> int | None:
    """An RFC 3339 time in microseconds (further digits are cut off), or None when it is not one."""
    match = RFC_3339.fullmatch(text)
    if match is None:
        return None
    day, clock, decimals, zulu, sign, hours, minutes = match.groups()
    try:
        local = datetime.fromisoformat(f"{day}T{clock}")
    except ValueError:
        return None
    value = (local - WALL_EPOCH) // timedelta(microseconds=1) + int((decimals or "").ljust(6, "0")[:6])
    if zulu:
        return value
    if int(hours) > 23 or int(minutes) > 59:
        return None
    shift = (int(hours) * 3600 + int(minutes) * 60) * SECOND_US
    return value - shift if sign == "+" else value + shift


def read_key(key: bytes) -> str:
    """The account that a key names."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise DeadLetterError("malformed")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DeadLetterError("malformed") from error


def read_event(value: bytes) -> dict[str, Any]:
    """The CloudEvent's id, source, type, data, subject, `time_us` (None: it has no time) and billing fields."""
    try:
        document = read_json(value, NESTED_MAX + CARRIED)
    except ValueError as error:
        raise DeadLetterError("malformed") from error
    event = event_of(document)
    if event["type"] not in CARRYING and nesting(value.decode("utf-8")) > NESTED_MAX:
        raise DeadLetterError("malformed")
    return event


def event_of(document: object) -> dict[str, Any]:
    """The same of a JSON document."""
    if not isinstance(document, dict):
        raise DeadLetterError("malformed")
    specversion, subject, time = document.get("specversion"), document.get("subject"), document.get("time")
    if isinstance(specversion, Number) or specversion != "1.0":
        raise DeadLetterError("malformed")
    for name in ("id", "source", "type"):
        text = document.get(name)
        if not is_text(text) or "\0" in text or not 1 <= len(text) <= TEXT_CHARACTERS_MAX:
            raise DeadLetterError("malformed")
    data = document.get("data")
    if not isinstance(data, dict) or len(data) > DATA_FIELDS_MAX:
        raise DeadLetterError("malformed")
    if subject is not None and not is_text(subject):
        raise DeadLetterError("malformed")
    time_us = None
    if time is not None:
        time_us = time_us_of(time) if is_text(time) else None
        if time_us is None:
            raise DeadLetterError("malformed")
    seq = document.get("seq")
    if seq is not None and not (isinstance(seq, Number) and re.fullmatch(r"[0-9]{1,10}", seq) and int(seq) <= 10**9):
        raise DeadLetterError("malformed")
    scope, hold, final = document.get("scope", ""), document.get("hold"), document.get("holdfinal", True)
    if not is_text(scope) or (scope and not SCOPE.fullmatch(scope)) or not isinstance(final, bool):
        raise DeadLetterError("malformed")
    if hold is not None and not (is_text(hold) and 1 <= len(hold) <= TOKEN_CHARACTERS_MAX and "\0" not in hold):
        raise DeadLetterError("malformed")
    billing = (document["type"], time_us, canonical(data), scope, hold, final or hold is None, seq)
    event = {name: document[name] for name in ("id", "source", "type", "data")}
    event |= {"subject": subject, "time_us": time_us, "billing": billing, "scope": scope}
    return event | {"hold": hold, "final": final or hold is None, "seq": None if seq is None else int(seq)}


def is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and not isinstance(value, Number)


def is_name(value: object) -> bool:
    return is_text(value) and 1 <= len(value) <= TEXT_CHARACTERS_MAX and "\0" not in value


class Fields:
    """The fields of a control record's body; what cannot be read is `bad_control`."""

    def __init__(self, body: dict[str, object]) -> None:
        self._body = body
        self._asked: set[str] = set()

    def _get(self, name: str) -> object:
        self._asked.add(name)
        return self._body.get(name)

    def close(self) -> None:
        """A field that the kind does not have is a mistake of the sender's: it is not passed over."""
        if set(self._body) - self._asked:
            raise DeadLetterError("bad_control")

    def absent(self, name: str) -> bool:
        return self._get(name) is None

    def nested(self, name: str) -> "Fields":
        value = self._get(name)
        if not isinstance(value, dict):
            raise DeadLetterError("bad_control")
        return Fields(value)

    def object(self, name: str) -> dict[str, Any]:
        """A nested object, as it stands."""
        value = self._get(name)
        if not isinstance(value, dict):
            raise DeadLetterError("bad_control")
        return value

    def boolean(self, name: str, default: bool | None = None) -> bool:
        value = self._get(name) if name in self._body else default
        self._asked.add(name)
        if not isinstance(value, bool):
            raise DeadLetterError("bad_control")
        return value

    def required_boolean(self, name: str) -> bool:
        if name not in self._body:
            raise DeadLetterError("bad_control")
        return self.boolean(name, False)

    def optional_boolean(self, name: str) -> bool | None:
        return None if self._get(name) is None else self.boolean(name, False)

    def list_of(self, name: str) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise DeadLetterError("bad_control")
        return value

    def required_string(self, name: str) -> str | None:
        """A string or null, but said."""
        if name not in self._body:
            raise DeadLetterError("bad_control")
        return self.optional_string(name)

    def string(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self._body:
            self._asked.add(name)
            return default
        value = self._get(name)
        if not isinstance(value, str) or isinstance(value, Number):
            raise DeadLetterError("bad_control")
        return value

    def optional_string(self, name: str) -> str | None:
        return None if self._get(name) is None else self.string(name)

    def text(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self._body:
            self._asked.add(name)
            return default
        value = self.string(name)
        if not 1 <= len(value) <= TEXT_CHARACTERS_MAX or "\0" in value:
            raise DeadLetterError("bad_control")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._get(name) is None else self.text(name)

    def texts(self, name: str) -> list[str]:
        if name not in self._body:
            self._asked.add(name)
            return []
        value = self._get(name)
        if not isinstance(value, list) or not all(is_text(item) for item in value):
            raise DeadLetterError("bad_control")
        return value

    def required_names(self, name: str) -> list[str] | None:
        """A list of names or null, but said."""
        if name not in self._body:
            raise DeadLetterError("bad_control")
        value = self._get(name)
        if value is not None and not (isinstance(value, list) and all(is_name(item) for item in value)):
            raise DeadLetterError("bad_control")
        return None if value is None else list(value)

    def integer(self, name: str, default: int | None = None) -> int:
        if default is not None and name not in self._body:
            self._asked.add(name)
            return default
        return self.whole(self._get(name))

    @staticmethod
    def whole(value: Any) -> int:
        if not isinstance(value, Number) or re.fullmatch(r"-?[0-9]{1,19}", value) is None:
            raise DeadLetterError("bad_control")
        if not -(2**63) <= int(value) < 2**63:
            raise DeadLetterError("bad_control")
        return int(value)

    def amounts(self, name: str) -> dict[int, str]:
        """A list of [whole number, text], as a table."""
        rows = self.list_of(name)
        if not all(isinstance(row, list) and len(row) == 2 and is_text(row[1]) for row in rows):
            raise DeadLetterError("bad_control")
        return {self.whole(row[0]): row[1] for row in rows}

    def optional_integer(self, name: str) -> int | None:
        return None if self._get(name) is None else self.integer(name)


class HoldToken(NamedTuple):
    """What the token of a hold says, as far as it can be held against the log."""

    account: str
    scope: str
    id: str
    epoch: int
    number: int  # ascending within an epoch
    admitted: int
    held: dict[str, int]  # price -> nano
    is_lease: bool


def read_hold(control_key: bytes, token: str) -> HoldToken:
    """ValueError, LookupError or TypeError when this deployment has not sealed it."""
    sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
    mac, body = sealed[:TOKEN_MAC_BYTES], sealed[TOKEN_MAC_BYTES:]
    message = b"tallygate hold\0" + body
    if not hmac.compare_digest(mac, hmac.digest(control_key, message, "sha256")[:TOKEN_MAC_BYTES]):
        raise ValueError("not sealed here")
    version, hold = json.loads(body)
    if version != 1:
        raise ValueError(f"version {version}")
    account, scope, partition, epoch, number, admitted = hold[:6]
    held: dict[str, int] = {}
    for quantity, _, prices in hold[10]:
        for price in prices:
            held[price] = held.get(price, 0) + int(quantity)
    name, requests = f"{partition}.{epoch}.{number}", int(hold[11]) if len(hold) > 11 else 0
    return HoldToken(account, scope, name, int(epoch), int(number), int(admitted), held, requests > 0)
