"""What a catalogue may say of meters and dimensions, and what each refusal points at."""

from typing import Any

import msgspec
import pytest

from engine.meters import DimensionDefinition, Meter, MeterDefinition, compile_dimension, compile_meter

Faults = list[tuple[str, str]]


def dimension(**said: Any) -> Faults:
    faults: Faults = []
    compile_dimension(
        "d",
        msgspec.convert(said, DimensionDefinition),
        lambda path, message: faults.append((".".join(map(str, path)), message)),
    )
    return faults


def meter(dimensions: dict[str, Any] | None = None, **said: Any) -> tuple[Meter, Faults]:
    faults: Faults = []

    def tell(path: tuple[str | int, ...], message: str) -> None:
        faults.append((".".join(map(str, path)), message))

    declared = {
        name: compile_dimension(name, msgspec.convert(body, DimensionDefinition), tell)
        for name, body in (dimensions or {}).items()
    }
    definition = msgspec.convert({"event_type": "e", "aggregation": "count"} | said, MeterDefinition)
    return compile_meter("m", definition, declared, {}, tell), faults


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({}, "dimensions.d"),
        ({"of": ""}, "dimensions.d.of"),
        ({"default": "x" * 129}, "dimensions.d.default"),
        ({"bands": [{"name": "a"}], "values": {"x": "y"}}, "dimensions.d.bands"),
        ({"bands": [{"name": "a"}], "otherwise": "y"}, "dimensions.d.bands"),
        ({"bands": [{"name": "a"}] * 2}, "dimensions.d.bands"),
        ({"bands": [{"name": "a", "up_to": "1"}]}, "dimensions.d.bands.0.up_to"),
        ({"bands": [{"name": "a"}, {"name": "b"}]}, "dimensions.d.bands.0.up_to"),
        ({"bands": [{"name": "a", "up_to": "x"}, {"name": "b"}]}, "dimensions.d.bands.0.up_to"),
        (
            {"bands": [{"name": "a", "up_to": "2"}, {"name": "b", "up_to": "2"}, {"name": "c"}]},
            "dimensions.d.bands.1.up_to",
        ),
        ({"bands": [{"name": "", "up_to": "2"}, {"name": "b"}]}, "dimensions.d.bands.0.name"),
        ({"expression": "a +", "bands": [{"name": "x"}]}, "dimensions.d.expression"),
        ({"expression": "a"}, "dimensions.d.expression"),
        ({"expression": "a", "of": "b", "bands": [{"name": "x"}]}, "dimensions.d.of"),
        ({"expression": "a", "default": "b", "bands": [{"name": "x"}]}, "dimensions.d.default"),
        ({"values": {"a": ""}}, "dimensions.d.values.a"),
        ({"values": {"5": "a", "5.0": "b"}}, "dimensions.d.values.5"),
        ({"values": {str(number): "x" for number in range(1001)}}, "dimensions.d.values"),
        (
            {"bands": [*({"name": f"b{n}", "up_to": str(n + 1)} for n in range(100)), {"name": "z"}]},
            "dimensions.d.bands",
        ),
    ],
)
def test_a_faulty_dimension_is_refused_with_its_path(said: dict[str, Any], path: str) -> None:
    assert dimension(**said)[0][0] == path


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"aggregation": "sum"}, "meters.m.aggregation"),
        ({"field": "x"}, "meters.m.field"),
        ({"expression": "x"}, "meters.m.expression"),
        ({"aggregation": "sum", "expression": "x", "field": "x"}, "meters.m.expression"),
        ({"aggregation": "sum", "expression": "x ^ 2"}, "meters.m.expression"),
        ({"aggregation": "max"}, "meters.m.aggregation"),
        ({"aggregation": "unique_count"}, "meters.m.aggregation"),
        ({"aggregation": "unique_count", "expression": "x"}, "meters.m.expression"),
        ({"aggregation": "latest", "field": "x", "limit": "5"}, "meters.m.limit"),
        ({"aggregation": "unique_count", "field": "x", "limit": "0"}, "meters.m.limit"),
        ({"aggregation": "unique_count", "field": "x", "limit": "10001"}, "meters.m.limit"),
        ({"aggregation": "unique_count", "field": "x", "limit": "1.5"}, "meters.m.limit"),
        ({"aggregation": "unique_count", "field": "x", "limit": "many"}, "meters.m.limit"),
        ({"aggregation": "time_weighted_sum", "session": "s"}, "meters.m.aggregation"),
        ({"aggregation": "time_weighted_sum", "field": "x"}, "meters.m.session"),
        ({"aggregation": "time_weighted_sum", "field": "x", "session": "s", "state": "t"}, "meters.m.state"),
        ({"aggregation": "time_weighted_sum", "field": "x", "session": "s", "timeout_s": 9}, "meters.m.timeout_s"),
        ({"aggregation": "time_weighted_sum", "field": "x", "session": "s", "limit": "5"}, "meters.m.limit"),
        ({"aggregation": "duration"}, "meters.m.session"),
        ({"aggregation": "duration", "session": ""}, "meters.m.session"),
        ({"aggregation": "duration", "session": "s", "state": ""}, "meters.m.state"),
        ({"aggregation": "duration", "session": "s", "timeout_s": 0}, "meters.m.timeout_s"),
        ({"aggregation": "duration", "session": "s", "timeout_s": 86_401}, "meters.m.timeout_s"),
        ({"aggregation": "duration", "session": "s", "field": "x", "expression": "y"}, "meters.m.expression"),
        ({"aggregation": "duration", "session": "s", "limit": "5"}, "meters.m.limit"),
        ({"session": "s"}, "meters.m.session"),
        ({"aggregation": "sum", "field": "x", "state": "s"}, "meters.m.state"),
        ({"timeout_s": 60}, "meters.m.timeout_s"),
        ({"group_by": ["a", "a"]}, "meters.m.group_by"),
        ({"group_by": [""]}, "meters.m.group_by"),
        ({"event_type": ""}, "meters.m.event_type"),
        ({"when": {"f": {}}}, "meters.m.when.f"),
        ({"when": {"": {"exists": True}}}, "meters.m.when."),
        ({"when": {"f": {"exists": False, "one_of": ["a"]}}}, "meters.m.when.f.exists"),
        ({"when": {"f": {"above": "1", "at_least": "1"}}}, "meters.m.when.f"),
        ({"when": {"f": {"above": "x"}}}, "meters.m.when.f.above"),
        ({"when": {"f": {"above": "3", "below": "3.000000001"}}}, "meters.m.when.f"),
        ({"when": {"d": {"exists": True}}}, "meters.m.when.d.exists"),
        ({"when": {"d": {"above": "3"}}}, "meters.m.when.d"),
        ({"when": {"f": {"one_of": [str(number) for number in range(1001)]}}}, "meters.m.when.f.one_of"),
        ({"when": {f"f{number}": {"exists": True} for number in range(17)}}, "meters.m.when"),
    ],
)
def test_a_faulty_meter_is_refused_with_its_path(said: dict[str, Any], path: str) -> None:
    assert [path for path, _ in meter({"d": {"default": "none"}}, **said)[1]] == [path]


def test_above_and_below_leave_out_the_limit_itself() -> None:
    found, faults = meter(when={"f": {"above": "3", "below": "5"}})
    assert not faults
    counted = [number for number in ("3", "3.000000001", "4.999999999", "5") if found.counts({"f": number})]
    assert counted == ["3.000000001", "4.999999999"]


def test_a_meter_looks_at_the_fields_behind_its_dimensions() -> None:
    found, _ = meter(
        {"region": {"of": "zone", "default": "x"}, "kind": {"of": "code", "default": "y"}},
        group_by=["model", "region"],
        when={"status": {"exists": True}, "kind": {"one_of": ["y"]}},
    )
    sized, _ = meter({"size": {"expression": "a + b", "bands": [{"name": "x"}]}}, group_by=["size"])
    assert sized.looks_at == {"a", "b"}
    assert found.looks_at == {"model", "zone", "status", "code"}
    assert found.cell({"model": "a"}) == ("a", "x")


def test_a_meter_without_news_is_stored_as_short_as_it_is_written() -> None:
    assert msgspec.json.encode(MeterDefinition("e", "count")) == b'{"event_type":"e","aggregation":"count"}'
