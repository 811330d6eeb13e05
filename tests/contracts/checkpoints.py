"""Checkpoints for tests, with every field filled that the test does not care about."""

import xxhash

from actors.ports import (
    AccountRow,
    AlertRow,
    Checkpoint,
    Claim,
    CommandRow,
    DeadLetterRow,
    DedupSegment,
    LastRecord,
    PostingRow,
    RunHead,
    record_digest,
)
from engine.runs import seal

PARTITION = 3


def account(name: str = "acme", blob: bytes = b"state", balance: int = 5, wake_us: int | None = None) -> AccountRow:
    return AccountRow(account=name, blob=blob, wake_us=wake_us, balance=balance, spend=-balance, currency="USD")


def segment(bucket: int, *numbers: int, generation: int = 0) -> DedupSegment:
    return DedupSegment(bucket, generation, b"".join(number.to_bytes(20, "big") for number in numbers))


def run(bucket: int, generation: int, *numbers: int) -> tuple[RunHead, bytes]:
    """A sealed run of the same entries, and its rows."""
    sealed = seal([segment(bucket, *numbers).entries])
    digest = xxhash.xxh3_128_digest(sealed.outline + sealed.rows)
    return RunHead(bucket, generation, sealed.count, sealed.outline, digest), sealed.rows


def command(offset: int, key: str = "key", log_time_us: int = 1_000, answer: str = "applied") -> CommandRow:
    return CommandRow(
        offset=offset,
        log_time_us=log_time_us,
        account="acme",
        command_key=key,
        digest=record_digest(None, key.encode()),
        kind="grant",
        body=b'{"kind":"grant"}',
        answer=answer,
    )


def posting(amount: int, lot: str = "lot-1") -> PostingRow:
    return PostingRow(
        account="acme",
        lot=lot,
        lot_kind="paid",
        kind="burn",
        usage_period_us=1,
        posting_period_us=2,
        amount=amount,
    )


def alert(name: str, offset: int = 1) -> AlertRow:
    return AlertRow(alert_id=name, account="acme", offset=offset, body=b'{"id":"' + name.encode() + b'"}')


def dead_letter(offset: int, reason: str = "malformed", detail: str = "why") -> DeadLetterRow:
    return DeadLetterRow(
        offset=offset, log_time_us=7, reason=reason, detail=detail, key=None, value=b"\x00\xff not text"
    )


def cut(claim: Claim, ckpt_seq: int | None = None, **changes: object) -> Checkpoint:
    """The checkpoint that follows `claim`, or the one with the given number, with these rows."""
    seq = claim.ckpt_seq + 1 if ckpt_seq is None else ckpt_seq
    fields: dict[str, object] = {
        "partition": claim.partition,
        "epoch": claim.epoch,
        "ckpt_seq": seq,
        "next_offset": 10 * seq,
        "last": LastRecord(10 * seq - 1, 1_750_000_000_000 + seq, record_digest(b"key", b"value")),
        "blob": b"partition state %d" % seq,
        "accounts": [],
        "dedup": [],
        "dedup_bucket_min": 0,
        "commands": [],
        "postings": [],
        "alerts": [],
        "dead_letters": [],
    }
    return Checkpoint(**(fields | changes))  # type: ignore[arg-type]  # the keys are the field names
