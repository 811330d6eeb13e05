"""What a record that cancels or amends a rated event says, and which of them wait for their event."""

import re
from dataclasses import dataclass
from typing import Any

from loadtest.oracle.records import DeadLetterError, Number, event_of

PARTS = {"tallygate.cancel": ["original"], "tallygate.amend": ["original", "amended"]}
REVISION_MAX = 10**9
PARKED_BYTES_MAX = 256 * 1024

Revision = tuple[str, str, int]  # source, id, how often it was amended


@dataclass(frozen=True)
class Correction:
    original: dict[str, Any]
    amended: dict[str, Any] | None
    revision: int
    record_bytes: int

    @property
    def corrects(self) -> Revision:
        return (self.original["source"], self.original["id"], self.revision)

    @property
    def makes(self) -> Revision:
        """-1 stands for a cancelled event, at whatever revision it was."""
        return (self.original["source"], self.original["id"], self.revision + 1 if self.amended else -1)

    @property
    def said(self) -> tuple[object, object]:
        """The same for two records that correct the same to the same."""
        return (self.original["billing"], self.amended and self.amended["billing"])


def read_correction(account: str, event: dict[str, Any], record_bytes: int) -> Correction:
    """The correction in a record of one of the types above."""
    names, data = PARTS[event["type"]], event["data"]
    if sorted({*data, "revision"}) != sorted([*names, "revision"]):
        raise DeadLetterError("malformed")
    revision = data.get("revision", Number("0"))
    if not isinstance(revision, Number) or not re.fullmatch(r"[0-9]{1,10}", revision) or int(revision) > REVISION_MAX:
        raise DeadLetterError("malformed")
    parts = [event_of(data[name]) for name in names]
    for part in parts:
        if part["type"] in PARTS or part["seq"] is not None or part["subject"] not in (None, account):
            raise DeadLetterError("bad_correction")
    if len({(part["id"], part["source"], part["hold"], part["final"]) for part in parts}) > 1:
        raise DeadLetterError("bad_correction")
    return Correction(parts[0], parts[1] if len(parts) > 1 else None, int(revision), record_bytes)
