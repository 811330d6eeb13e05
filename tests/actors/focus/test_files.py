"""The files, read back."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet
import pytest

from actors.focus.columns import COLUMNS
from actors.focus.files import ParquetAbsent, write_csv, write_parquet
from actors.focus.rows import Issuer, focus_rows
from tests.actors.focus.focus_lines import LINES, periods

ROWS = focus_rows(LINES, periods, Issuer("Example AI", 'In"ference, fast'))


def test_csv() -> None:
    file = io.StringIO(newline="")
    write_csv(ROWS, file)
    read = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert list(read[0]) == list(COLUMNS)
    assert sum(Decimal(row["BilledCost"]) for row in read) == sum(Decimal(line.amount) for line in LINES)
    late = next(row for row in read if row["ChargeClass"])
    assert (late["BilledCost"], late["ConsumedQuantity"]) == ("-2.000000000000", "-7.000000000")
    assert late["ChargePeriodStart"] == "2025-10-20T00:00:00Z"
    assert (late["ListUnitPrice"], late["ServiceName"]) == ("", 'In"ference, fast')
    assert file.getvalue().count("\r\n") == len(ROWS) + 1


def test_parquet_has_decimals_and_instants(tmp_path: Path) -> None:
    write_parquet(ROWS, tmp_path / "rows.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert table.column_names == list(COLUMNS)
    assert str(table.schema.field("BilledCost").type) == "decimal128(38, 12)"
    assert not table.schema.field("BilledCost").nullable and table.schema.field("ChargeClass").nullable
    read = table.to_pylist()
    assert [row["BilledCost"] for row in read] == [row["BilledCost"] for row in ROWS]
    assert read[0]["BillingPeriodStart"] == datetime(2025, 11, 1, tzinfo=UTC)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ParquetAbsent, match="tallygate\\[export\\]"):
        write_parquet(ROWS, tmp_path / "rows.parquet")
