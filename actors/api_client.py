"""The HTTP API from the command line: one call, its answer, or one line that says what to do."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import aiohttp

TIMEOUT_S: Final = 15.0


class ApiRefused(Exception):
    """The API could not be reached, or refused; the message is for a person."""


async def call(
    url: str, key: str, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | int | None
) -> dict[str, Any]:
    """The JSON object that the API answers with. Raises ApiRefused."""
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": uuid4().hex}
    given = {name: str(value) for name, value in query.items() if value is not None}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url.rstrip("/") + path, json=body, params=given, headers=headers) as answer,
        ):
            found = await answer.json(content_type=None) if answer.content_length != 0 else {}
            if answer.status < 300:
                return dict(found)
            raise ApiRefused(_told(answer.status, found))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ApiRefused(f"{url} does not answer as tallygate does ({type(error).__name__}): is it up?") from error


def _told(status: int, problem: Any) -> str:
    if not isinstance(problem, dict) or "detail" not in problem:
        return f"the API answered {status}"
    field = f"{problem['field']}: " if problem.get("field") else ""
    return f"{field}{problem['detail']} {problem.get('next_step', '')}".strip()
