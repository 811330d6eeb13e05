"""A sealed base: one partition's checkpoint as a file, from which, with the log behind it, any account is rebuilt.

    8 bytes     TGBASE and the format's version
    chunks      4 bytes length, then msgpack: the head first, then accounts, dedup, commands, engine errors, catalogues
    4 bytes 0   nothing was forgotten at the end
    32 bytes    SHA-256 of all before: damage is told apart from
    32 bytes    HMAC-SHA256 of all before, by the deployment's control key: nobody else has made or changed it

Nothing of a file is believed before both hold over the whole of it. Files are written and read a chunk at a time.
"""

import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from actors.checkpoints import StoredCheckpoint
from actors.ports import AccountRow, CommandRow, DedupSegment, LastRecord
from engine.partition import COMMAND_KEY_US
from engine.runs import ENTRY_BYTES
from engine.snapshot import VERSION, decode_partition

MAGIC: Final = b"TGBASE"
FORMAT: Final = b"\x00\x01"
SUFFIX: Final = ".tgbase"
CHUNK_BYTES: Final = 1024 * 1024  # about; one row is never split, a run of identities is
_SEAL_BYTES: Final = 64
_DOMAIN: Final = b"tallygate sealed base\0"  # so that a MAC of something else never passes for one of these


class BadBase(ValueError):
    """The file is no base that this deployment sealed, or it is damaged; the message says which, and what to do."""


class BaseHead(Struct, tag="head", array_like=True, frozen=True):
    """What the base is of."""

    topic: str
    partitions: int  # of the topic
    partition: int
    epoch: int
    ckpt_seq: int
    next_offset: int  # the first offset that is not in it
    last: LastRecord | None
    snapshot_version: int  # engine/snapshot.py
    tzdata: str  # the time-zone rules that made local midnights
    blob: bytes  # the partition's own state


class _Accounts(Struct, tag="accounts", array_like=True):
    rows: list[tuple[str, bytes, int | None, str, str, str]]  # money as decimal text of pico: law M1


class _Identities(Struct, tag="dedup", array_like=True):
    segment: DedupSegment


class _Commands(Struct, tag="commands", array_like=True):
    rows: list[CommandRow]


class _EngineErrors(Struct, tag="engine_errors", array_like=True):
    offsets: list[int]


class _Catalogue(Struct, tag="catalogue", array_like=True):
    version: int
    body: bytes


_Chunk = BaseHead | _Accounts | _Identities | _Commands | _EngineErrors | _Catalogue
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Chunk)


class Base(Struct):
    """A base in memory."""

    head: BaseHead
    accounts: list[AccountRow] = []
    dedup: list[DedupSegment] = []
    commands: list[CommandRow] = []
    engine_errors: list[int] = []
    catalogues: dict[int, bytes] = {}


def tzdata_version() -> str:
    """Of the time-zone rules this process works by."""
    return metadata.version("tzdata")


def base_path(folder: Path, partition: int) -> Path:
    """Where a folder keeps the base of a partition."""
    return folder / f"partition-{partition}{SUFFIX}"


# ------------------------------------------------------------------------------------------------------------- writing


class BaseWriter:
    """Writes one file, which appears under its name whole and on disk, or not at all."""

    def __init__(self, path: Path, control_key: bytes) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        self._digest = hashlib.sha256()
        self._mac = hmac.new(control_key, _DOMAIN, "sha256")
        self._file: BinaryIO | None = None

    def __enter__(self) -> "BaseWriter":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # It holds what customers used and paid: only its owner may read it.
        self._file = os.fdopen(os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        self._put(MAGIC + FORMAT)
        return self

    def write(self, chunk: _Chunk) -> None:
        body = _encoder.encode(chunk)
        self._put(len(body).to_bytes(4))
        self._put(body)

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._digest.update(data)
        self._mac.update(data)
        self._file.write(data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._file is not None
        try:
            if kind is None:
                self._put(bytes(4))
                self._file.write(self._digest.digest() + self._mac.digest())
                self._file.flush()
                os.fsync(self._file.fileno())
                self._unfinished.replace(self._path)
                _sync_folder(self._path.parent)
        finally:
            self._file.close()
            with suppress(FileNotFoundError):
                self._unfinished.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def seal_base(
    checkpoint: StoredCheckpoint, folder: Path, *, topic: str, partitions: int, control_key: bytes
) -> BaseHead:
    """Write the checkpoint into the folder; an older base of the partition is replaced once the new one is whole.

    Raises BadBase when the partition has no checkpoint yet, or names a catalogue that the store does not hold."""
    head = checkpoint.head
    if head.blob is None:
        raise BadBase(f"partition {head.partition} was never checkpointed: there is nothing to seal yet")
    state = decode_partition(head.blob)
    sealed = BaseHead(
        topic,
        partitions,
        head.partition,
        head.epoch,
        head.ckpt_seq,
        head.next_offset,
        head.last,
        VERSION,
        tzdata_version(),
        head.blob,
    )
    with BaseWriter(base_path(folder, head.partition), control_key) as file:
        file.write(sealed)
        for version, _ in state.catalogues:
            body = await checkpoint.catalogue(version)
            if body is None:
                raise BadBase(f"partition {head.partition} names catalogue version {version}, which is not stored")
            file.write(_Catalogue(version, body))
        async for accounts in checkpoint.accounts():
            for piece in _account_pieces(accounts):
                file.write(piece)
        async for segment in checkpoint.dedup():
            for identities in _identity_pieces(segment):
                file.write(identities)
        async for commands in checkpoint.remembered_commands(state.log_time_us - COMMAND_KEY_US):
            file.write(_Commands(commands))
        file.write(_EngineErrors(await checkpoint.engine_errors()))
    return sealed


def _account_pieces(rows: list[AccountRow]) -> Iterator[_Accounts]:
    piece, size = _Accounts([]), 0
    for row in rows:
        if piece.rows and size + len(row.blob) > CHUNK_BYTES:
            yield piece
            piece, size = _Accounts([]), 0
        piece.rows.append((row.account, row.blob, row.wake_us, str(row.balance), str(row.spend), row.currency))
        size += len(row.blob)
    yield piece


def _identity_pieces(segment: DedupSegment) -> Iterator[_Identities]:
    step = CHUNK_BYTES // ENTRY_BYTES * ENTRY_BYTES
    for start in range(0, len(segment.entries), step):
        yield _Identities(DedupSegment(segment.bucket, segment.generation, segment.entries[start : start + step]))


# ------------------------------------------------------------------------------------------------------------- reading


def check_base(path: Path, control_key: bytes) -> BaseHead:
    """Seal and readability of the whole file; what it is of. Raises BadBase."""
    head: BaseHead | None = None
    for chunk in _chunks(path, control_key):
        if isinstance(chunk, BaseHead):
            head = chunk
    assert head is not None
    return head


def read_base(path: Path, control_key: bytes) -> Base:
    """The whole base. Raises BadBase."""
    chunks = _chunks(path, control_key)
    head = next(chunks)
    assert isinstance(head, BaseHead)
    base = Base(head)
    for chunk in chunks:
        match chunk:
            case _Accounts():
                base.accounts += [
                    AccountRow(account, blob, wake_us, int(balance), int(spend), currency)
                    for account, blob, wake_us, balance, spend, currency in chunk.rows
                ]
            case _Identities():
                base.dedup.append(chunk.segment)
            case _Commands():
                base.commands += chunk.rows
            case _EngineErrors():
                base.engine_errors += chunk.offsets
            case _Catalogue():
                base.catalogues[chunk.version] = chunk.body
            case BaseHead():
                raise BadBase(f"{path}: has two heads")
    return base


def _chunks(path: Path, control_key: bytes) -> Iterator[_Chunk]:
    """Every chunk, the head first, once the seal has been found to hold. Raises BadBase."""
    try:
        with path.open("rb") as file:
            end = _check_seal(path, file, control_key)
            file.seek(len(MAGIC + FORMAT))
            first = True
            while file.tell() < end:
                chunk = _decoder.decode(file.read(int.from_bytes(file.read(4))))
                if first is not isinstance(chunk, BaseHead):
                    raise BadBase(f"{path}: does not begin with its one head; seal it anew")
                first = False
                yield chunk
            if first:
                raise BadBase(f"{path}: is empty; seal it anew")
    except OSError as error:
        raise BadBase(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BadBase(f"{path}: its seal holds, but it cannot be read: {error}; which version wrote it?") from error


def _check_seal(path: Path, file: BinaryIO, control_key: bytes) -> int:
    """Where the chunks end."""
    beginning = file.read(len(MAGIC + FORMAT))
    if beginning[: len(MAGIC)] != MAGIC:
        raise BadBase(f"{path}: is no sealed base")
    if beginning != MAGIC + FORMAT:
        raise BadBase(
            f"{path}: has format {beginning[len(MAGIC) :].hex() or 'nothing'}, this version reads {FORMAT.hex()}; "
            "take the tallygate that sealed it, or seal anew"
        )
    sealed = os.fstat(file.fileno()).st_size - _SEAL_BYTES
    digest = hashlib.sha256(beginning)
    mac = hmac.new(control_key, _DOMAIN + beginning, "sha256")
    left = sealed - len(beginning)
    tail = b""
    while left > 0 and (data := file.read(min(CHUNK_BYTES, left))):
        digest.update(data)
        mac.update(data)
        left -= len(data)
        tail = (tail + data)[-4:]
    seal = file.read(_SEAL_BYTES)
    if tail != bytes(4) or seal[:32] != digest.digest():
        raise BadBase(f"{path}: is damaged or cut off: its SHA-256 does not hold; take another copy")
    if not hmac.compare_digest(seal[32:], mac.digest()):
        raise BadBase(
            f"{path}: was sealed with another control key, or by someone else: set the control_key of the deployment "
            "that sealed it, or do not trust the file"
        )
    return sealed - 4
