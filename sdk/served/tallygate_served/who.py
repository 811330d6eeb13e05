"""Who asked and who pays, in a request id: the one thing that reaches an inference engine and comes back from it."""

import base64
import binascii
import json
from dataclasses import dataclass

_MARK = "tg1."
# What vLLM's OpenAI server puts before the header's id.
_PREFIXES = ("chatcmpl-", "cmpl-", "resp_")


@dataclass(frozen=True)
class Who:
    """`request` is the id of the usage event that bills it; None elsewhere: not known."""

    request: str
    account: str | None = None
    scope: str = ""
    feature: str | None = None
    run: str | None = None  # of an agent, say, whose requests are billed as one


def mark(who: Who) -> str:
    """The value of `X-Request-Id` from which the plug-in reads `who`. It is no secret, and no proof."""
    parts = [who.request, who.account, who.scope, who.feature]
    if who.run is not None:
        parts.append(who.run)
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return _MARK + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def unmark(request_id: str) -> Who:
    """What a request id of the engine says. One without a mark is the request's own id, and nothing else is known."""
    for prefix in _PREFIXES:
        if request_id.startswith(prefix):
            request_id = request_id[len(prefix) :]
            break
    if not request_id.startswith(_MARK):
        return Who(request_id)
    # vLLM adds -0, -1 ... for the prompts of one request; both signs stand in the alphabet, and a mark's JSON ends in ].
    text = request_id[len(_MARK) :]
    for end in (len(text), text.rfind("-")):
        try:
            parts = json.loads(base64.urlsafe_b64decode(text[:end] + "=" * (-end % 4)))
            request, account, scope, feature, *rest = parts
            (run,) = rest or (None,)
        except (ValueError, TypeError, RecursionError, binascii.Error):
            continue
        if isinstance(request, str) and request:
            return Who(request, account, scope, feature, run)
    return Who(request_id)
