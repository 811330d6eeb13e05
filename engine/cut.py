"""A consistent cut of a partition: everything that changed since the last one, as it stood at one offset.

Rating goes on while a cut is encoded: an account about to change is encoded first (copy on write). What else changed is
handed over whole when the cut begins.
"""

import msgspec
from msgspec import Struct

from engine.account import Account
from engine.dedup import Dedup
from engine.outcomes import AccountRow, AlertRow, CommandRow, DeadLetterRow, DedupSegment, PostingRow
from engine.snapshot import encode_account


class Journal(Struct):
    """What was written since the last cut, beside accounts and the duplicate memory."""

    commands: list[CommandRow] = msgspec.field(default_factory=list)
    alerts: list[AlertRow] = msgspec.field(default_factory=list)
    dead_letters: list[DeadLetterRow] = msgspec.field(default_factory=list)


class Cut:
    """Complete once `encode` has returned True. `blob` is the partition's own state (engine/snapshot.py)."""

    def __init__(
        self, blob: bytes, log_time_us: int, dirty: dict[str, Account], journal: Journal, dedup: list[DedupSegment]
    ) -> None:
        self.blob = blob
        self.accounts: list[AccountRow] = []
        self.postings: list[PostingRow] = []
        self.dedup = dedup
        self.dedup_bucket_min = Dedup.bucket_min(log_time_us)
        self.commands = journal.commands
        self.alerts = journal.alerts
        self.dead_letters = journal.dead_letters
        self._log_time_us = log_time_us
        self._pending = dirty

    def encode(self, accounts_max: int) -> bool:
        """Encode up to that many accounts; True when none is left."""
        for _ in range(min(accounts_max, len(self._pending))):
            self._encode(next(iter(self._pending)))
        return not self._pending

    def before_change(self, account_id: str) -> None:
        """The account is about to change: encode it as it stood at the cut."""
        if account_id in self._pending:
            self._encode(account_id)

    def _encode(self, account_id: str) -> None:
        account = self._pending.pop(account_id)
        blob, wake_us = encode_account(account), account.wake_us()
        postings, balance, spend = account.settle(account.period_of(self._log_time_us))
        self.accounts.append(AccountRow(account_id, blob, wake_us, balance, spend, account.currency))
        self.postings += postings
