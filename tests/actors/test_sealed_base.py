"""A sealed base: what is written is read again, and whatever is wrong with a file is refused before any of it is used."""

from pathlib import Path

import msgspec
import pytest

from actors import sealed_base
from actors.ports import DedupSegment
from actors.sealed_base import BadBase, Base, base_path, check_base, read_base, seal_base, tzdata_version
from engine.snapshot import VERSION
from tests.actors.proof_rig import BenchCheckpoint, ProofRig
from tests.engine.bench import KEY, TOPIC, random_bench

OTHER_KEY = b"the control key of someone else."


@pytest.fixture
def rig() -> ProofRig:
    bench, _ = random_bench(7, 120)
    rig = ProofRig(bench)
    rig.checkpoint()
    return rig


async def sealed(rig: ProofRig, folder: Path) -> Path:
    await seal_base(rig.stored(), folder, topic=TOPIC, partitions=2, control_key=KEY)
    return base_path(folder, rig.bench.number)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_base_holds_all_that_the_checkpoint_held(rig: ProofRig, tmp_path: Path) -> None:
    path = await sealed(rig, tmp_path / "made" / "if need be")
    base = read_base(path, KEY)
    head, store = base.head, rig.store
    assert (head.topic, head.partitions, head.partition, head.next_offset) == (TOPIC, 2, 0, rig.next_offset)
    assert (head.epoch, head.ckpt_seq, head.last, head.blob) == (1, 1, rig.last, store.blob)
    assert (head.snapshot_version, head.tzdata) == (VERSION, tzdata_version())
    assert base.accounts == [row for _, row in sorted(store.accounts.items())]
    assert any(row.balance < 0 for row in base.accounts), "money may be negative, and is beyond 64 bits at times"
    assert sorted((segment.bucket, segment.entries) for segment in base.dedup) == sorted(
        (segment.bucket, segment.entries) for segment in store.dedup
    )
    assert base.commands == store.commands
    assert set(base.catalogues) == {version for version, _ in msgspec.msgpack.decode(head.blob)[3]}
    assert check_base(path, KEY) == head
    assert path.stat().st_mode & 0o077 == 0, "it is nobody else's to read"
    assert files_in(path.parent) == [path], "nothing unfinished is left"


async def test_money_beyond_64_bits_survives(rig: ProofRig, tmp_path: Path) -> None:
    name, row = next(iter(rig.store.accounts.items()))
    rig.store.accounts[name] = msgspec.structs.replace(row, balance=-(10**30), spend=1 << 64)
    base = read_base(await sealed(rig, tmp_path), KEY)
    assert [(kept.balance, kept.spend) for kept in base.accounts if kept.account == name] == [(-(10**30), 1 << 64)]


async def test_long_runs_and_many_accounts_are_cut_into_chunks(
    rig: ProofRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_base, "CHUNK_BYTES", 100)
    entries = b"".join(segment.entries for segment in rig.store.dedup if segment.bucket == rig.store.dedup[0].bucket)
    rig.store.dedup = [DedupSegment(rig.store.dedup[0].bucket, 0, entries)]
    base = read_base(await sealed(rig, tmp_path), KEY)
    assert len(base.dedup) > 1
    assert all(len(segment.entries) <= 100 for segment in base.dedup)
    assert b"".join(segment.entries for segment in base.dedup) == entries


async def test_every_flipped_bit_is_refused(rig: ProofRig, tmp_path: Path) -> None:
    rig.store.accounts = dict(list(rig.store.accounts.items())[:1])
    path = await sealed(rig, tmp_path)
    whole = path.read_bytes()
    for place in [*range(256), *range(256, len(whole) * 8 - 1024, 61), *range(len(whole) * 8 - 1024, len(whole) * 8)]:
        spoilt = bytearray(whole)
        spoilt[place // 8] ^= 1 << place % 8
        path.write_bytes(spoilt)
        with pytest.raises(BadBase):
            check_base(path, KEY)
    path.write_bytes(whole)
    check_base(path, KEY)


async def test_every_truncation_and_every_addition_is_refused(rig: ProofRig, tmp_path: Path) -> None:
    path = await sealed(rig, tmp_path)
    whole = path.read_bytes()
    for length in [*range(100), *range(100, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadBase, match=r"damaged or cut off|is no sealed base|has format"):
            check_base(path, KEY)
    path.write_bytes(whole + b"\x00")
    with pytest.raises(BadBase, match="damaged or cut off"):
        check_base(path, KEY)


async def test_another_key_is_refused_and_told_apart_from_damage(rig: ProofRig, tmp_path: Path) -> None:
    path = await sealed(rig, tmp_path)
    with pytest.raises(BadBase, match="another control key"):
        read_base(path, OTHER_KEY)


async def test_a_newer_format_is_refused_by_name(rig: ProofRig, tmp_path: Path) -> None:
    path = await sealed(rig, tmp_path)
    path.write_bytes(b"TGBASE\x00\x02" + path.read_bytes()[8:])
    with pytest.raises(BadBase, match="has format 0002, this version reads 0001"):
        check_base(path, KEY)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadBase, match="cannot be read: No such file"):
        read_base(tmp_path / "nothing", KEY)


async def test_a_seal_that_breaks_off_leaves_the_older_base(rig: ProofRig, tmp_path: Path) -> None:
    path = await sealed(rig, tmp_path)
    before = path.read_bytes()

    class Broken(BenchCheckpoint):
        async def engine_errors(self) -> list[int]:
            raise ConnectionError("the database is gone")

    stored = rig.stored()
    with pytest.raises(ConnectionError):
        await seal_base(
            Broken(stored.head, rig.store, rig.catalogues), tmp_path, topic=TOPIC, partitions=2, control_key=KEY
        )
    assert path.read_bytes() == before
    assert files_in(tmp_path) == [path]


async def test_what_was_never_checkpointed_cannot_be_sealed(rig: ProofRig, tmp_path: Path) -> None:
    rig.store.blob = None
    with pytest.raises(BadBase, match="never checkpointed"):
        await sealed(rig, tmp_path)


async def test_a_catalogue_that_is_gone_is_named(rig: ProofRig, tmp_path: Path) -> None:
    rig.catalogues.clear()
    with pytest.raises(BadBase, match="catalogue version 1, which is not stored"):
        await sealed(rig, tmp_path)
    assert files_in(tmp_path) == []


def test_a_base_in_memory_begins_empty() -> None:
    """Structs share no default list."""
    head = sealed_base.BaseHead("usage", 1, 0, 1, 1, 0, None, VERSION, "", b"")
    one, other = Base(head), Base(head)
    one.engine_errors.append(1)
    assert other.engine_errors == []
