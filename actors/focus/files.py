"""FOCUS rows as files: CSV, and Parquet by pyarrow (the extra `export`)."""

import csv
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TextIO

from actors.focus.columns import COLUMNS, DIGITS, Kind, Row, Value


class ParquetAbsent(Exception):
    """pyarrow is not installed."""


def write_csv(rows: Iterable[Row], file: TextIO) -> None:
    """With a header, RFC 4180; null is empty; numbers have all their digits; instants end in Z."""
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_text(column.kind, row[name]) for name, column in COLUMNS.items()])


def _text(kind: Kind, value: Value) -> str:
    if isinstance(value, Decimal):
        # All digits, always: of whole numbers a reader would make a column of integers.
        return f"{value:.{DIGITS[kind]}f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value or ""


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Money and quantities are decimals, instants UTC timestamps. Raises ParquetAbsent, OSError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ParquetAbsent("pyarrow is not installed: pip install 'tallygate[export]', or write CSV") from error
    kinds: Final[dict[Kind, Any]] = {
        **{kind: pyarrow.decimal128(38, digits) for kind, digits in DIGITS.items()},
        Kind.TEXT: pyarrow.string(),
        Kind.TAGS: pyarrow.string(),
        Kind.INSTANT: pyarrow.timestamp("s", tz="UTC"),
    }
    schema = pyarrow.schema(
        [pyarrow.field(name, kinds[column.kind], nullable=column.nullable) for name, column in COLUMNS.items()]
    )
    table = pyarrow.Table.from_pydict({name: [row[name] for row in rows] for name in COLUMNS}, schema=schema)
    pyarrow.parquet.write_table(table, path, compression="zstd")
