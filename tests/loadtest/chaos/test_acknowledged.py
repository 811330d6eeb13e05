"""The journal of acknowledgements says of every record where it went, what it was, and whether it must be rated."""

from pathlib import Path

import orjson
import pytest

from actors.ports import Outgoing
from loadtest.chaos.acknowledged import NO_IDENTITY, Acknowledged, digest_of, identity_of, read_acknowledged
from loadtest.oracle.records import partition_of


def event(number: int) -> bytes:
    return orjson.dumps({"subject": "acme", "source": "gw", "id": f"e{number}"})


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    journal = Acknowledged(tmp_path / "journal", 4)
    home = partition_of(b"acme", 4)
    other = (home + 1) % 4
    records = [
        Outgoing("usage", event(1), b"acme"),
        Outgoing("usage", event(2), b"acme", other),
        Outgoing("usage", b"junk", b"acme"),
    ]
    journal.write(["event", "wrong_partition", "malformed"], records, [7, 3, 8])
    journal.close()
    entries = read_acknowledged(tmp_path / "journal", home)
    assert entries["offset"].tolist() == [7, 8]
    assert entries["identity"].tolist() == [identity_of("acme", "gw", "e1"), NO_IDENTITY]
    assert bytes(entries["digest"].tolist()[0]) == digest_of(b"acme", event(1))
    assert read_acknowledged(tmp_path / "journal", other)["identity"].tolist() == [identity_of("acme", "gw", "e2")]
    assert journal.events == 2


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    Acknowledged(tmp_path, 1).close()
    with pytest.raises(FileExistsError):
        Acknowledged(tmp_path, 1)


def test_nothing_and_an_empty_text_are_two_records() -> None:
    assert len({digest_of(None, b""), digest_of(b"", None), digest_of(b"", b""), digest_of(None, None)}) == 4
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc")
