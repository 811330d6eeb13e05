"""Refusals as they cross the wire (RFC 9457), and decoders' complaints as refusals that name the field."""

import re
from typing import Final

import msgspec
from msgspec import Struct

from actors.web.wire import Problem

MEDIA_TYPE: Final = b"application/problem+json"

_AT: Final = re.compile(r"^(.*?)(?: - at `(?:key in )?\$\.?(.*)`)?$", re.DOTALL)
_NAMED: Final = re.compile(r"(?:unknown|missing required) field `(.*)`", re.DOTALL)
_encoder: Final = msgspec.json.Encoder()


class ProblemBody(Struct, omit_defaults=True):
    """What a refused caller reads."""

    type: str  # "/problems/<slug>": stable, to branch on
    title: str
    status: int
    detail: str
    instance: str  # the request's id, as in X-Request-Id: quote it when asking for help
    next_step: str
    field: str | None = None  # which part of the request must change


def problem_json(problem: Problem, request_id: str) -> bytes:
    """The body of the answer."""
    return _encoder.encode(
        ProblemBody(
            f"/problems/{problem.slug}",
            problem.title,
            problem.status,
            problem.detail,
            request_id,
            problem.next_step,
            problem.field,
        )
    )


def refused_text(text: str) -> tuple[str, str]:
    """(field, detail) of a typed decoder's complaint: "bounds[0].up_to", "Expected `str`, got `int`"."""
    match = _AT.match(text)
    detail, place = (match[1], match[2] or "") if match else (text, "")
    named = _NAMED.search(detail)
    if named:
        place = f"{place}.{named[1]}" if place else named[1]
    return place[:128] or "body", detail[:256]
