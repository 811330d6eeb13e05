"""Asks exporters for their pages and appends what they say. One pass: each target once, in its own time.

Nothing is kept between two passes. What Kafka does not take is lost, and counted: a sample that is missing is a gap,
which nobody takes for zero, and the counters on the next page include what it counted.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import aiohttp
from msgspec import Struct

from actors.ports import Clock, LogUnavailable, Outgoing
from actors.telemetry.nvml import NvmlAbsent, load_nvml, read_board
from actors.telemetry.text_pages import BadPage, read_page
from engine.cost.pages import Page
from engine.cost.telemetry import Sample, encode_sample
from engine.events import Malformed

PAGE_BYTES_MAX: Final = 8 * 1024 * 1024  # a node of 8 GPUs says 0.1 MiB, a Ray node with many workers a few
TARGETS_MAX: Final = 1_000
IN_FLIGHT_MAX: Final = 32
NVML: Final = "nvml"  # in place of a URL: the GPUs of this machine
_ACCEPT: Final = "text/plain;version=0.0.4"

_log = logging.getLogger(__name__)


class BadTarget(ValueError):
    """A target that nothing can be asked of; the message says which and why."""


class Target(Struct, frozen=True):
    """Whom to ask. `name` is the replica, if it is an inference engine; of `nvml` the host; of an exporter any name."""

    name: str
    url: str


def parse_target(text: str) -> Target:
    """`NAME=URL`, or `NAME=nvml`. Raises BadTarget."""
    name, equals, url = text.partition("=")
    if not equals or not name or len(name) > 256:
        raise BadTarget(f"target {text[:80]!r}: say NAME=URL, as in llama-0=http://10.0.0.5:8000/metrics")
    if url != NVML and not url.startswith(("http://", "https://")):
        raise BadTarget(f"target {name}: {url[:80]!r} is no http:// or https:// URL")
    return Target(name, url)


class Answered(Struct, frozen=True):
    """What came of asking one target."""

    target: Target
    page: Page | None
    problem: str | None = None  # why there is no page


class Pass(Struct, frozen=True):
    """What came of one pass."""

    answered: tuple[Answered, ...]
    appended: int  # samples in Kafka
    lost: int  # samples that Kafka did not take, or that no record can hold

    @property
    def samples(self) -> list[Sample]:
        """All of them, in the order of targets."""
        return [sample for answer in self.answered if answer.page is not None for sample in answer.page.samples]


class Appender(Protocol):
    """Where samples go: the part of the topics' door that this file needs."""

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        """The offsets. Raises LogUnavailable."""


class Scraper:
    """Polls targets. They are the operator's own, in the operator's network: no egress guard judges their addresses."""

    def __init__(
        self, targets: Sequence[Target], appender: Appender | None, clock: Clock, timeout_s: float = 5.0
    ) -> None:
        """Without an appender the samples are only returned. `timeout_s` bounds one target's whole answer."""
        if not 1 <= len(targets) <= TARGETS_MAX:
            raise BadTarget(f"{len(targets)} targets: 1 to {TARGETS_MAX} can be asked")
        names = [target.name for target in targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadTarget(f"target {twice[0]} is named twice")
        self._targets = tuple(targets)
        self._appender = appender
        self._clock = clock
        self._timeout_s = timeout_s

    async def once(self) -> Pass:
        """One pass. A target that does not answer costs the others nothing."""
        places = asyncio.Semaphore(IN_FLIGHT_MAX)
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s), headers={"Accept": _ACCEPT}
        ) as session:
            answered = await asyncio.gather(*(self._ask(session, target, places) for target in self._targets))
        found = Pass(tuple(answered), 0, 0)
        return found if self._appender is None else await self._append(found, self._appender)

    async def run(self, every_s: float, tell: Callable[[Pass], None]) -> None:
        """Pass after pass, until it is cancelled. A pass that takes longer than its time delays the next one."""
        while True:
            began_s = self._clock.boot_s()
            tell(await self.once())
            await self._clock.sleep(max(0.0, every_s - (self._clock.boot_s() - began_s)))

    async def _ask(self, session: aiohttp.ClientSession, target: Target, places: asyncio.Semaphore) -> Answered:
        async with places:
            if target.url == NVML:
                return await self._ask_driver(target)
            try:
                async with session.get(target.url, allow_redirects=False) as response:
                    if response.status != 200:
                        return Answered(target, None, f"HTTP {response.status}")
                    body = bytearray()
                    async for chunk in response.content.iter_chunked(65_536):
                        body += chunk
                        if len(body) > PAGE_BYTES_MAX:
                            return Answered(target, None, f"more than {PAGE_BYTES_MAX} bytes")
                    content_type = response.headers.get("Content-Type", "text/plain")
            except TimeoutError:
                return Answered(target, None, f"no answer within {self._timeout_s} s")
            except (aiohttp.ClientError, OSError) as error:
                return Answered(target, None, f"{type(error).__name__}: {error}")
            try:
                # Wherever the page says no time of its own, the sample's is that of the answer.
                return Answered(target, read_page(body.decode(), content_type, self._clock.wall_us(), target.name))
            except (BadPage, UnicodeDecodeError) as error:
                return Answered(target, None, str(error))

    async def _ask_driver(self, target: Target) -> Answered:
        def read() -> Page:
            return Page(tuple(read_board(load_nvml(), self._clock.wall_us(), target.name)))

        try:
            # A thread: a driver that hangs must not hang the others.
            return Answered(target, await asyncio.wait_for(asyncio.to_thread(read), self._timeout_s))
        except TimeoutError:
            return Answered(target, None, f"no answer within {self._timeout_s} s")
        except NvmlAbsent as error:
            return Answered(target, None, str(error))

    async def _append(self, found: Pass, appender: Appender) -> Pass:
        records: list[Outgoing] = []
        lost = 0
        for sample in found.samples:
            try:
                key, value = encode_sample(sample)
            except Malformed as error:
                _log.warning("%s %s: no record can hold it: %s", sample.kind, sample.key[:80], error)
                lost += 1
                continue
            records.append(Outgoing("gpu-telemetry", value, key))
        if not records:
            return Pass(found.answered, 0, lost)
        try:
            await appender.append(records)
        except LogUnavailable as error:
            _log.warning("%s", error)
            return Pass(found.answered, 0, lost + len(records))
        return Pass(found.answered, len(records), lost)


def log_pass(done: Pass) -> None:
    """Logs what went wrong in a pass, a line for each thing."""
    for answer in done.answered:
        if answer.problem is not None:
            _log.warning("target %s (%s): %s", answer.target.name, answer.target.url, answer.problem)
        elif answer.page is not None and not answer.page.samples:
            _log.warning("target %s (%s): its page says nothing known", answer.target.name, answer.target.url)
        for fault in () if answer.page is None else answer.page.faults:
            _log.warning("target %s: left out: %s", answer.target.name, fault)
    if done.lost:
        _log.error("%d samples are lost: the record says nothing of that moment", done.lost)
