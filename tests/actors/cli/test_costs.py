"""`tallygate costs`: sheets made of public ones, and what events report held against them."""

import json
from pathlib import Path

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.web import reported_cost_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, beside_up, call

GENAI = [{"id": "p", "models": [{"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 3, "output_mtok": 15}}]}]


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    source = tmp_path / "data.json"
    source.write_text(json.dumps(GENAI))
    made = tmp_path / "sheet.json"
    done = call("costs", "import", "genai-prices", str(source), "--to", str(made))
    assert (done.exit_code, "1 models, 0 left out" in done.stdout) == (0, True)
    return made


def event(number: int, reported: object, model: str = "m") -> str:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
    data = {"model": model, "usage": usage} | ({} if reported is None else {"reported_cost": reported})
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": "s",
            "type": "t",
            "time": "2026-06-01T00:00:00Z",
            "subject": "acme",
            "data": data,
        }
    )


def check(tmp_path: Path, sheet: Path, *lines: str, as_json: bool = True) -> tuple[int, list[dict[str, object]], str]:
    events = tmp_path / "events.jsonl"
    events.write_text("\n".join(lines))
    done = call(
        "costs", "check", str(events), "--sheet", str(sheet), "--shape", "openai_chat", *(["--json"] if as_json else [])
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()] if as_json and done.exit_code < WRONG_INPUT else []
    return done.exit_code, rows, done.stdout + done.stderr


def test_reported_costs_are_held_against_the_sheet(tmp_path: Path, sheet: Path) -> None:
    code, rows, _ = check(tmp_path, sheet, event(1, "3"), event(2, 3.25), event(3, None))
    assert code == FAILED
    assert [(row["computed"], row["reported"], row["gap"]) for row in rows] == [
        ("3", "3", "0"),
        ("3", "3.250000000000", "0.250000000000"),
        ("3", None, None),
    ]
    assert check(tmp_path, sheet, event(1, "3"), event(3, None))[0] == 0


def test_both_are_recorded_and_their_gaps_shown(
    tmp_path: Path, sheet: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside_up(api.url)
    path = "/v1/reported-costs"
    monkeypatch.setitem(ANSWERS, ("POST", path), (200, {"recorded": 2}))
    monkeypatch.setitem(ANSWERS, ("GET", path), (200, reported_cost_routes.ROUTES[1].example.response))
    events = tmp_path / "events.jsonl"
    events.write_text("\n".join([event(1, 3.25), event(2, "3", model="x")]))
    shape = ("--sheet", str(sheet), "--shape", "openai_chat")
    assert call("costs", "check", str(events), *shape, "--record").exit_code == FAILED
    ((_, asked, body, _),) = api.asked
    assert asked == path
    assert body["items"] == [
        {"source": "s", "id": "e1", "model": "m", "computed": "3", "reported": "3.250000000000", "provider": "p"}
        | {"time": "2026-06-01T00:00:00Z", "currency": "USD"},
        {"source": "s", "id": "e2", "model": "x", "computed": None, "reported": "3", "provider": "unknown"}
        | {"time": "2026-06-01T00:00:00Z", "currency": "USD"},
    ]
    assert "0.0005" in call("costs", "gaps").stdout
    assert '"gap":"0.0005"' in call("costs", "gaps", "--json").stdout


def test_what_is_not_known_is_said_and_is_no_zero(tmp_path: Path, sheet: Path) -> None:
    code, rows, _ = check(tmp_path, sheet, event(1, "3", model="x"))
    assert (code, rows[0]["computed"], rows[0]["why"]) == (FAILED, None, "the sheet has no model x")
    _, _, told = check(tmp_path, sheet, event(1, "3", model="x"), event(2, "4"), as_json=False)
    assert "not known: the sheet has no model x" in told
    assert "Upstream costs, USD" in told


@pytest.mark.parametrize(
    ("line", "told"), [("{", "line 1"), (event(1, "much"), "reported_cost"), (event(1, 1e-12), "reported_cost")]
)
def test_what_cannot_be_read_is_told_by_line(tmp_path: Path, sheet: Path, line: str, told: str) -> None:
    code, _, output = check(tmp_path, sheet, line)
    assert (code, told in output) == (WRONG_INPUT, True)


def test_a_sheet_is_shown_and_never_written_over(tmp_path: Path, sheet: Path) -> None:
    shown = call("costs", "show", "m", "--sheet", str(sheet))
    assert json.loads(shown.stdout)["terms"] == [
        {"prices": {"input_text": {"amount": "3", "per": 1_000_000}, "output_text": {"amount": "15", "per": 1_000_000}}}
    ]
    assert call("costs", "show", "x", "--sheet", str(sheet)).exit_code == WRONG_INPUT
    again = call("costs", "import", "genai-prices", str(tmp_path / "data.json"), "--to", str(sheet))
    assert (again.exit_code, "is there already" in again.stderr) == (WRONG_INPUT, True)


def test_what_is_no_sheet_is_told(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[1]")
    assert call("costs", "import", "litellm", str(wrong), "--to", str(tmp_path / "s.json")).exit_code == WRONG_INPUT
    shown = call("costs", "show", "m", "--sheet", str(wrong))
    assert (shown.exit_code, "wrong.json" in shown.stderr) == (WRONG_INPUT, True)
