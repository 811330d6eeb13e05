import msgspec
import orjson
import pytest
from msgspec import Struct

from actors.web.problems import problem_json, refused_text
from actors.web.wire import absent, invalid, unavailable


class Inner(Struct, forbid_unknown_fields=True):
    number: int
    name: str = ""


class Outer(Struct, forbid_unknown_fields=True):
    inner: list[Inner] = []
    texts: dict[str, str] = {}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"inner":[{"number":"x"}]}', "inner[0].number"),
        (b'{"inner":[{}]}', "inner[0].number"),
        (b'{"inner":[{"number":1,"nmae":"x"}]}', "inner[0].nmae"),
        (b'{"outer":1}', "outer"),
        (b'{"texts":{"a":1}}', "texts[...]"),
        (b"[]", "body"),
        (b"{", "body"),
    ],
)
def test_a_decoders_complaint_names_the_field(text: bytes, field: str) -> None:
    with pytest.raises(msgspec.MsgspecError) as raised:
        msgspec.json.decode(text, type=Outer)
    assert refused_text(str(raised.value))[0] == field


def test_a_long_name_is_cut() -> None:
    field, detail = refused_text(f"Object contains unknown field `{'x' * 5_000}`")
    assert len(field) == 128 and len(detail) == 256


def test_a_problem_crosses_the_wire_without_empty_fields() -> None:
    told = orjson.loads(problem_json(absent("account"), "r-1"))
    assert told["type"] == "/problems/not-found" and told["instance"] == "r-1" and "field" not in told
    assert orjson.loads(problem_json(invalid("a.b", "wrong"), "r-2"))["field"] == "a.b"


def test_whoever_may_come_again_is_told_when() -> None:
    assert unavailable("away", 3).headers == {"Retry-After": "3"}
