"""Queries are found by name, and one that is nameless, doubled or undescribed stops the start."""

import re
from pathlib import Path

import pytest

from actors import membership, postgres
from actors.queries import QUERIES, read_queries


def test_a_query_is_found_by_its_name() -> None:
    one = "-- preface\n\n-- name: one\n-- The first.\nSELECT 1\n\n"
    text = one + "-- name: two\n-- The second,\n-- at length.\nSELECT 2\nFROM x\n"
    assert read_queries(text) == {"one": "SELECT 1", "two": "SELECT 2\nFROM x"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: one\nSELECT 1\n", "no description"),
        ("-- name: one\n", "no description"),
        ("-- name: one\n-- What for.\n", "empty"),
        ("-- name: one\n-- A.\nSELECT 1\n-- name: one\n-- B.\nSELECT 2\n", "twice"),
    ],
)
def test_faults_are_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_queries(text)


def test_every_query_has_a_user() -> None:
    code = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (membership, postgres))
    assert set(QUERIES) == {name for name in QUERIES if re.search(rf'"{name}"', code)}
