"""Commands against accounts, from any process: sealed, appended to the log, answered by the account's owner.

The answer is the owner's own, given after it has read the command back from the log: what it says is durable, and any
later question sees it. An answer that does not come says nothing: the command may be in the log, and be applied later.
Repeating it under the same command key finds out, and changes nothing a second time.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from actors.door_wire import Answer, Applied, AppliedView, Question
from actors.ports import LogUnavailable, Outgoing
from engine.events import Command, command_digest, parse_control, seal
from engine.outcomes import APPLIED
from engine.placement import partition_for

_KEY_PREFIX: Final = "api-"


class Appends(Protocol):
    """The durable way into the log."""

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        """Offsets, once all are durable. Raises `LogUnavailable`; some may be in the log."""


class Owners(Protocol):
    """The owners of the accounts."""

    async def ask(self, account: str, question: Question, within_s: float) -> Answer:
        """The answer of the account's owner. Raises OSError or TimeoutError: none came."""


class Answered(Struct, frozen=True):
    """How the owner answered a command, and where in the log the command stands."""

    command_key: str
    answer: str  # "applied", or the wire name of a refusal (engine/outcomes.py)
    partition: int
    offset: int
    epoch: int
    log_time_us: int

    @property
    def applied(self) -> bool:
        """Whether it took effect, now or when it was first sent."""
        return self.answer == APPLIED


class CommandUnanswered(Exception):
    """No answer came. `appended`: it is in the log, and will be answered; else even that is not known."""

    def __init__(self, command_key: str, *, appended: bool) -> None:
        super().__init__(f"command {command_key!r}: {'in the log, not answered' if appended else 'perhaps in the log'}")
        self.command_key = command_key
        self.appended = appended


class CommandUnread(Exception):
    """The owner could not make anything of the command: it is a dead letter. Nothing took effect."""

    def __init__(self, partition: int, offset: int) -> None:
        super().__init__(f"the command at {partition}/{offset} is a dead letter: look there for the reason")
        self.partition = partition
        self.offset = offset


def new_command_key() -> str:
    """A command key for a caller who brought none."""
    return f"{_KEY_PREFIX}{uuid.uuid4().hex}"


def derived_name(prefix: str, account: str, command_key: str) -> str:
    """A name for what a command makes, when its sender chose none: the same at every repetition of the command."""
    digest = hashlib.sha256(f"{account}\x00{command_key}".encode()).hexdigest()
    return f"{prefix}_{digest[:20]}"


class CommandDesk:
    """Takes commands in."""

    def __init__(self, appends: Appends, owners: Owners, control_key: bytes, topic: str, partitions: int) -> None:
        """`topic` is the physical name of the log, and `partitions` how many it has."""
        self._appends = appends
        self._owners = owners
        self._control_key = control_key
        self._topic = topic
        self._partitions = partitions

    async def submit(self, command: Command, within_s: float) -> Answered:
        """The owner's answer, a refusal too. The body is the same for equal commands, so that a repetition is one.

        Raises `engine.events.Malformed` (nothing was written), CommandUnanswered, CommandUnread."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        body = msgspec.json.encode(command)
        parse_control(body)
        partition = partition_for(command.account.encode(), self._partitions)
        record = Outgoing("usage", seal(self._control_key, self._topic, partition, body), partition=partition)
        appended = False
        try:
            async with asyncio.timeout_at(until_s):
                (offset,) = await self._appends.append([record])
                appended = True
                question = Applied(partition, offset, command.account, command.command_key, command_digest(body))
                answer = await self._owners.ask(command.account, question, until_s - loop.time())
        except (LogUnavailable, OSError, TimeoutError) as error:
            raise CommandUnanswered(command.command_key, appended=appended) from error
        if not isinstance(answer, AppliedView):
            raise CommandUnanswered(command.command_key, appended=True)
        if answer.answer is None:
            raise CommandUnread(partition, offset)
        return Answered(
            command.command_key, answer.answer, partition, offset, answer.as_of.epoch, answer.as_of.log_time_us
        )
