"""Holds and their tokens (README, "Holds"): what is reserved for one admitted request, and the sealed text that says so.

The token is all that a usage event needs to be rated as its hold was admitted, so rating needs no memory of holds.
"""

import binascii
import hmac
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from engine.events import TOKEN_TEXT_MAX

if TYPE_CHECKING:
    from hashlib import _Hash

VALID_GAP_US: Final = 5_000_000  # between `valid_until` (stop, or extend) and `expires`: clock error plus a round trip
_VERSION: Final = 1
_MAC_BYTES: Final = 16
_DOMAIN: Final = b"tallygate hold\x00"  # the same key seals control records; a token must never pass for one
_BLOCK_BYTES: Final = 64  # of SHA-256
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")


class BadToken(ValueError):
    """The text is not a token that this deployment sealed."""


class Bound(Struct, frozen=True, array_like=True):
    """At most `quantity` nano-units, in any mixture over the prices it reaches."""

    quantity: int
    reached: tuple[str, ...]  # prices that the request's usage may fall under
    held: tuple[str, ...]  # those of them that no other dominates: the quantity is held on each


class Hold(Struct, frozen=True, array_like=True):
    """One admitted request. Times are microseconds since 1970 UTC by the owner's clock."""

    account: str
    scope: str
    partition: int
    epoch: int
    number: int  # unique within (partition, epoch)
    admitted_us: int  # its usage is rated at this instant
    version: int  # catalogue version in force then
    valid_until_us: int  # the holder stops or extends before
    expires_us: int
    report_until_us: int  # usage that reaches the log by then is covered
    bounds: tuple[Bound, ...]
    requests: int = 0  # of a lease: how many usage events may name it; 0: it is the hold of one request
    extends: bool = False  # of a lease: what was granted before and more; by itself it grants nothing

    @property
    def is_lease(self) -> bool:
        """Whether its holder decides many requests by it."""
        return self.requests > 0

    @property
    def id(self) -> str:
        """The same through extensions."""
        return f"{self.partition}.{self.epoch}.{self.number}"

    def held(self) -> dict[str, int]:
        """Nano-units per price, as admitted."""
        return held_by(self.bounds)


class Drawn(Struct):
    """What events have drawn from a hold that must be remembered (README, the end of "Slices")."""

    until_us: int  # the hold's report_until
    quantities: list[int]  # nano-units, by bound
    done: bool  # its last event has come


def held_by(bounds: tuple[Bound, ...]) -> dict[str, int]:
    """Nano-units per price that the bounds hold; a price of which they hold nothing is left out, as in a slice."""
    totals: dict[str, int] = {}
    for bound in bounds:
        for price in bound.held if bound.quantity else ():
            totals[price] = totals.get(price, 0) + bound.quantity
    return totals


def hold_text(hold: Hold) -> str:
    """The hold as a snapshot has it."""
    return msgspec.json.encode(hold).decode()


def read_hold(text: str) -> Hold:
    """Raises msgspec.MsgspecError."""
    return _hold_decoder.decode(text)


class _Sealed(Struct, array_like=True):
    version: int
    hold: Hold


# Quantities may exceed what a msgpack integer holds (2^64 nano-units are 1.8 * 10^10 units): JSON has no such end.
_decoder: Final = msgspec.json.Decoder(_Sealed)
_hold_decoder: Final = msgspec.json.Decoder(Hold)


def seal_token(control_key: bytes, hold: Hold) -> str:
    """The hold as a URL-safe text of at most TOKEN_TEXT_MAX characters, valid for this deployment only."""
    body = msgspec.json.encode(_Sealed(_VERSION, hold))
    text = binascii.b2a_base64(_mac(control_key, body) + body, newline=False)
    return text.translate(_TO_URL).rstrip(b"=").decode()


def read_token(control_key: bytes, text: str) -> Hold:
    """The hold in a token. Raises BadToken."""
    if len(text) > TOKEN_TEXT_MAX or not text.isascii():
        raise BadToken(f"a hold's token has at most {TOKEN_TEXT_MAX} characters of base64url")
    try:
        padded = text.encode().translate(_FROM_URL) + b"=" * (-len(text) % 4)
        sealed = binascii.a2b_base64(padded, strict_mode=True)
    except binascii.Error:
        raise BadToken("a hold's token is base64url") from None
    body = sealed[_MAC_BYTES:]
    if not hmac.compare_digest(sealed[:_MAC_BYTES], _mac(control_key, body)):
        raise BadToken("the token was not sealed by this deployment")
    try:
        stated = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise BadToken(str(error)[:200]) from error
    if stated.version != _VERSION:
        raise BadToken(f"token version {stated.version}; this engine reads {_VERSION}")
    return stated.hold


def _mac(control_key: bytes, body: bytes) -> bytes:
    """HMAC-SHA-256 of the domain and the body, cut. The key's own blocks are hashed once: a tenth of a check was spent on
    them."""
    inner, outer = _keyed(control_key)
    of_body = inner.copy()
    of_body.update(body)
    whole = outer.copy()
    whole.update(of_body.digest())
    return whole.digest()[:_MAC_BYTES]


@lru_cache(4)  # one deployment has one key
def _keyed(control_key: bytes) -> "tuple[_Hash, _Hash]":
    """The two hashes of RFC 2104 as they are behind the key, and the inner one behind the domain too."""
    key = control_key if len(control_key) <= _BLOCK_BYTES else sha256(control_key).digest()
    key = key.ljust(_BLOCK_BYTES, b"\0")
    inner, outer = sha256(bytes(byte ^ 0x36 for byte in key)), sha256(bytes(byte ^ 0x5C for byte in key))
    inner.update(_DOMAIN)
    return inner, outer
