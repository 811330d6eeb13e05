"""Catalogue files: what is read, and what is told about a file that cannot be."""

import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.catalogue import DEPTH_MAX, FILE_BYTES_MAX, CatalogueFileError, load_file, load_text
from engine.catalog import compile_catalogue, document_json, load_catalogue
from engine.money import PICO

EXAMPLE = Path(__file__).parents[2] / "config" / "catalogue.example.yaml"

SMALL = """\
meters:
  tokens:
    event_type: llm.request
    aggregation: sum
    field: tokens
    group_by: [model]
plans:
  basic:
    currency: USD
    prices:
      tokens: {meter: tokens, model: per_unit, amount: AMOUNT, per: 1000000}
"""


def faults_of(text: str | bytes) -> list[str]:
    with pytest.raises(CatalogueFileError) as caught:
        load_text(text.encode() if isinstance(text, str) else text, "prices.yaml")
    return str(caught.value).splitlines()


def test_the_example_compiles_and_keeps_its_prices() -> None:
    document = load_file(EXAMPLE)
    catalogue = compile_catalogue(1, document)
    assert set(catalogue.plans) == {"starter", "growth", "studio"}
    tiers = document.plans["starter"].prices["large-output"].tiers
    assert [(tier.up_to, tier.amount) for tier in tiers] == [
        ("2000000", "10.00"),
        ("20000000", "8.00"),
        (None, "6.50"),
    ]


def test_a_document_survives_storing() -> None:
    document = load_file(EXAMPLE)
    stored = document_json(document)
    assert document_json(load_file(EXAMPLE)) == stored
    assert set(load_catalogue(1, stored).plans) == {"starter", "growth", "studio"}


@given(st.integers(0, 10**6), st.integers(0, 10**12 - 1), st.integers(1, 12))
def test_an_amount_is_the_text_of_the_file_and_never_a_float(whole: int, fraction: int, digits: int) -> None:
    text = f"{whole}.{fraction:012d}"[: len(str(whole)) + 1 + digits]
    document = load_text(SMALL.replace("AMOUNT", text).encode(), "prices.yaml")
    assert document.plans["basic"].prices["tokens"].amount == text


def test_an_amount_may_be_quoted() -> None:
    document = load_text(SMALL.replace("AMOUNT", '"0.15"').encode(), "prices.yaml")
    price = compile_catalogue(1, document).plans["basic"].prices["tokens"]
    assert price.exact(10**9) * 1_000_000 == 15 * PICO // 100


@pytest.mark.parametrize("amount", ["1e-7", "1E3", ".5", "1_000", "0x10", ".inf", "-1", "1,5", "0.1234567890123"])
def test_an_amount_that_is_no_plain_decimal_is_refused_with_its_line(amount: str) -> None:
    (fault,) = faults_of(SMALL.replace("AMOUNT", f'"{amount}"' if "," in amount else amount))
    assert fault.startswith("prices.yaml:11: plans.basic.prices.tokens.amount: ")


def test_every_fault_is_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
meters:
  tokens:
    event_type: llm.request
    agregation: sum
    field: tokens
  calls:
    event_type: llm.request
    aggregation: cuont
plans:
  basic:
    currency: usd
    prices:
      a: {meter: tokens, model: per_unit, amount: 1, per: true}
      a: {meter: tokens, model: per_unit, amount: 1}
      b:
        meter: calls
        model: graduated
        tiers: {up_to: 3}
  empty:
    currency: USD
    prices:
"""
    assert faults_of(text) == [
        "prices.yaml:2: meters.tokens.aggregation: is missing",
        "prices.yaml:4: meters.tokens.agregation: there is no such key; did you mean aggregation?",
        "prices.yaml:8: meters.calls.aggregation: must be average or count or duration or latest or max or "
        "min or sum or time_weighted_sum or unique_count; did you mean count?",
        "prices.yaml:11: plans.basic.currency: 'usd' is not a three-letter ISO 4217 code, nor one of `units` (law M3)",
        "prices.yaml:13: plans.basic.prices.a.per: is the truth value true; quote it if you mean that text",
        "prices.yaml:14: plans.basic.prices.a: is there twice; the first one stands in line 13",
        "prices.yaml:18: plans.basic.prices.b.tiers: must be a list (- item), not a mapping",
        "prices.yaml:21: plans.empty.prices: must be a mapping (key: value), not empty",
    ]


def test_a_broken_law_cites_the_line_of_its_key() -> None:
    text = SMALL.replace("AMOUNT", "1").replace("field: tokens", "field:  'tokens'") + (
        "      other:\n        meter: nothing\n        model: graduated\n"
        "        tiers:\n          - amount: 1\n            up_to: 5\n          - amount: 2\n            up_to: 9\n"
    )
    assert faults_of(text) == [
        "prices.yaml:13: plans.basic.prices.other.meter: there is no meter 'nothing'",
        "prices.yaml:19: plans.basic.prices.other.tiers.1.up_to: the last tier is open: remove up_to, "
        "or add a tier behind it",
    ]


def test_an_unreadable_key_brings_no_second_fault_that_only_follows_from_it() -> None:
    misspelt = SMALL.replace("AMOUNT", "1").replace("group_by", "groupby")
    misspelt = misspelt.replace("meter: tokens,", "meter: tokens, where: {model: a},")
    assert faults_of(misspelt) == ["prices.yaml:6: meters.tokens.groupby: there is no such key; did you mean group_by?"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "prices.yaml: is empty; a catalogue has `meters` and `plans`"),
        ("# nothing\n", "prices.yaml: is empty; a catalogue has `meters` and `plans`"),
        ("- a", "prices.yaml:1: must be a mapping (key: value), not a list"),
        ("a: 1\nb: 'open", "prices.yaml:2: is not YAML: found unexpected end of stream"),
        ("a: &x 1", "prices.yaml:1: anchors (&) and aliases (*) are not allowed: write it out"),
        ("\na: *x", "prices.yaml:2: anchors (&) and aliases (*) are not allowed: write it out"),
        ("a: !!float 3", "prices.yaml:1: tags (!) are not allowed: every value here is text"),
        ("a: 1\n---\nb: 2", "prices.yaml:2: holds a second document; one file is one catalogue"),
        ("[a]: b", "prices.yaml:1: a key must be text"),
        ("[" * (DEPTH_MAX + 1), f"prices.yaml:1: is nested deeper than {DEPTH_MAX} levels"),
        ('a: "\\ud800"', "prices.yaml:1: holds half of a surrogate pair, which is no character"),
        ('a: "\\UFFFFFFFF"', "prices.yaml: is not YAML: Python int too large to convert to C int"),
        (b"a: b\nc: \xff", "prices.yaml:2: is not UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), f"prices.yaml: is larger than {FILE_BYTES_MAX} bytes"),
    ],
)
def test_what_is_not_a_catalogue_at_all_is_told_in_one_line(text: str | bytes, told: str) -> None:
    assert faults_of(text) == [told]


def test_a_file_that_is_not_there_is_a_fault_too(tmp_path: Path) -> None:
    with pytest.raises(CatalogueFileError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_gives_faults_and_never_another_error(seed: int) -> None:
    rng = random.Random(seed)
    body = bytearray(SMALL.replace("AMOUNT", "0.15").encode())
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(body))
        body[at : at + rng.randint(0, 6)] = bytes(rng.choice(b"{}[]:-#&*!|>'\"%@`,? \n\t0aZ\\\xff") for _ in range(3))
    with suppress(CatalogueFileError):
        load_text(bytes(body), "prices.yaml")


def with_features(lines: str) -> str:
    return SMALL.replace("AMOUNT", "1").replace("    currency: USD\n", f"    currency: USD\n    features:\n{lines}")


def test_a_feature_is_a_truth_value_or_the_text_of_the_file() -> None:
    lines = "      batch: true\n      fine: false\n      context: 128000\n      word: 'true'\n"
    document = load_text(with_features(lines).encode(), "prices.yaml")
    assert document.plans["basic"].features == {"batch": True, "fine": False, "context": "128000", "word": "true"}


def test_a_feature_that_is_neither_is_told_with_its_line() -> None:
    assert faults_of(with_features("      a: ~\n      b: [1]\n      c: True\n      d: ''\n")) == [
        "prices.yaml:11: plans.basic.features.a: is empty; quote it if you mean that text",
        "prices.yaml:12: plans.basic.features.b: must be text or a number, not a list",
        "prices.yaml:13: plans.basic.features.c: is the truth value true; quote it if you mean that text",
    ]


def closing(after_s: str) -> str:
    return SMALL.replace("AMOUNT", "1").replace(
        "    currency: USD\n", f"    currency: USD\n    close_after_s: {after_s}\n"
    )


@pytest.mark.parametrize(("text", "seconds"), [("86400", 86_400), ("172800", 172_800)])
def test_how_long_a_period_stays_open_is_a_whole_number(text: str, seconds: int) -> None:
    assert load_text(closing(text).encode(), "prices.yaml").plans["basic"].close_after_s == seconds


@pytest.mark.parametrize(
    ("text", "said"), [("1.5", "must be a whole number"), ("2592001", "must be 86400 to 2592000 ")]
)
def test_another_time_to_stay_open_is_told_with_its_line(text: str, said: str) -> None:
    (fault,) = faults_of(closing(text))
    assert "plans.basic.close_after_s" in fault and said in fault
