"""What a fleet of gateways was told and what it sent, and the sentences that follow when the log says otherwise.

The journal is the callers' side of the truth: every answer as it came, every usage event with whether it was
acknowledged. After the run it is held against the oracle, which knows nothing of holds being asked for.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from loadtest.oracle.accounts import OracleAccount, Rated


class CheckAnswer(Struct):
    """The answer to one check, as it came. Money is pico; `offset` is the next one that the owner would fold."""

    allowed: bool
    reason: str | None
    transient: bool
    retry_after_s: float | None
    price: int | None
    booked: int | None
    held: int | None
    available: int | None
    overdraft: int | None  # None: without limit
    partition: int | None
    epoch: int | None
    offset: int | None
    hold: str | None = None  # the id
    token: str | None = None
    valid_for_s: float | None = None


class Decided(Struct):
    """A request's last answer."""

    request: int
    account: str
    answer: CheckAnswer


class Sent(Struct):
    """One usage event that was sent; without an acknowledgement it may or may not be in the log."""

    request: int
    account: str
    source: str
    id: str
    hold: str
    acknowledged: bool = False


class Journal:
    """Grows while the fleet works."""

    def __init__(self) -> None:
        self.decided: list[Decided] = []
        self.sent: list[Sent] = []
        self.check_ms: list[float] = []  # from the first attempt to the answer, lost connections included
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []  # what a caller must never be told

    @property
    def allowed(self) -> int:
        return sum(decided.answer.allowed for decided in self.decided)

    @property
    def denied(self) -> int:
        return len(self.decided) - self.allowed

    def reasons(self) -> dict[str, int]:
        """How many requests were denied for which reason."""
        counts = Counter(decided.answer.reason or "?" for decided in self.decided if not decided.answer.allowed)
        return dict(sorted(counts.items()))

    def about(self, partition: int) -> "Journal":
        """The answers that speak of one partition, and the events sent under their holds."""
        part = Journal()
        part.decided = [decided for decided in self.decided if decided.answer.partition == partition]
        holds = {decided.answer.hold for decided in part.decided}
        part.sent = [sent for sent in self.sent if sent.hold in holds]
        return part


def judge_usage(journal: Journal, rated: Iterable[Rated], sources: Collection[str]) -> list[str]:
    """Each acknowledged event is rated exactly once; a denied request has no usage; nothing is rated that was not sent.

    `sources` are the event sources that only this journal's fleet uses."""
    found = Counter((event.account, event.source, event.id) for event in rated if event.source in sources)
    allowed = {decided.request for decided in journal.decided if decided.answer.allowed}
    known: set[tuple[str, str, str]] = set()
    sentences = [f"the fleet was told: {fault}" for fault in journal.faults]
    for sent in journal.sent:
        identity = (sent.account, sent.source, sent.id)
        known.add(identity)
        times = found[identity]
        if times > 1 or (sent.acknowledged and times == 0):
            sentences.append(
                f"account {sent.account}: event {sent.id} of {sent.source}: acknowledged, expected rated once, "
                f"found {times} times"
            )
        if times and sent.request not in allowed:
            sentences.append(f"account {sent.account}: event {sent.id} of {sent.source}: rated, yet denied")
    sentences += [
        f"account {account}: event {event_id} of {source}: rated, yet never sent"
        for account, source, event_id in sorted(found.keys() - known)
    ]
    return sentences


def overspend(accounts: Mapping[str, OracleAccount], overdrafts: Mapping[str, int]) -> int:
    """Pico of debt beyond the overdraft, over all accounts that `overdrafts` names. What a period owes besides its usage,
    such as a fee in advance, is no overspend: no check is asked for it."""
    return sum(
        max(0, accounts[name].debt - allowed - _owed_besides(accounts[name]))
        for name, allowed in overdrafts.items()
        if name in accounts
    )


def _owed_besides(account: OracleAccount) -> int:
    posted = [charges.items() for charges in account.adjusted.values()]
    return max(0, sum(pico for charges in posted for name, pico in charges if "\0" in name))


def judge_denials(journal: Journal) -> list[str]:
    """Every denial for want of credit says so in its own figures: what was available did not cover the price."""
    sentences = []
    for decided in journal.decided:
        answer = decided.answer
        if answer.allowed or answer.reason not in ("credit_depleted", "withheld"):
            continue
        if answer.booked is None or answer.held is None or answer.available is None or answer.price is None:
            sentences.append(f"account {decided.account}: denied as {answer.reason} without figures")
        elif answer.available != answer.booked - answer.held or answer.held < 0:
            sentences.append(
                f"account {decided.account}: booked {answer.booked} less held {answer.held} is not {answer.available}"
            )
        elif answer.overdraft is None or answer.available + answer.overdraft >= answer.price:
            sentences.append(
                f"account {decided.account}: denied as {answer.reason} at offset {answer.offset}, although "
                f"{answer.available} available and an overdraft of {answer.overdraft} cover the price {answer.price}"
            )
    return sentences
