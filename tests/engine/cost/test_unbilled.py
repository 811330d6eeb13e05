"""Unbilled tokens, found to the token, whatever order things are told in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cost.served import Served, Status
from engine.cost.telemetry import Metric, Sample, SourceKind
from engine.cost.unbilled import MINUTE_US, Rated, Side, Tokens, reconcile


def counter(at_s: int, generated: int, prompt: int = 0, replica: str = "r", rank: str = "0") -> Sample:
    values = {Metric.GENERATED: generated, Metric.PROMPT: prompt}
    return Sample(SourceKind.ENGINE, replica, at_s * 1_000_000, values, rank=rank)


def ran(request: str, first_s: int, last_s: int, output: int, status: Status = Status.OK, **more: object) -> Served:
    fields: dict[str, object] = {"replica": "r", "model": "m", "prompt": 100} | more
    return Served(
        request=request,
        scheduled_us=(first_s - 1) * 1_000_000,
        first_us=first_s * 1_000_000,
        last_us=last_s * 1_000_000,
        output=output,
        status=status,
        **fields,  # type: ignore[arg-type]
    )


SAMPLES = [counter(0, 1_000), counter(60, 1_050, 200), counter(120, 1_130, 400)]


def test_worked_one_billed_one_aborted_one_lost_one_cut_off() -> None:
    """The engine counted 130 tokens: 60 are billed, 20 were aborted, 40 have no event, and of 10 nobody tells."""
    served = [ran("a", 10, 50, 60), ran("b", 20, 40, 20, Status.ABORTED), ran("c", 30, 90, 40)]
    found = reconcile(SAMPLES, served, {"a": Rated()})
    assert found.total() == Tokens(counted=130, rated=60, aborted=20, missing=40)
    assert (found.total().unseen, found.total().unbilled) == (10, 70)
    prompts = found.total(side=Side.PROMPT)
    assert prompts == Tokens(counted=400, rated=100, aborted=100, missing=100)
    assert prompts.unseen == 100


def test_each_minute_has_its_part() -> None:
    found = reconcile(SAMPLES, [ran("c", 30, 90, 40)], {})
    assert found.minutes["r", Side.GENERATED, 0] == Tokens(counted=50, missing=20)
    assert found.minutes["r", Side.GENERATED, MINUTE_US] == Tokens(counted=80, missing=20)


def test_a_prompt_counts_at_its_first_token() -> None:
    """Scheduled in one minute, first token in the next."""
    found = reconcile(SAMPLES, [ran("a", 60, 70, 1)], {})
    assert found.minutes["r", Side.PROMPT, 0].missing == 0
    assert found.minutes["r", Side.PROMPT, MINUTE_US].missing == 100


def test_what_was_billed_is_held_against_what_was_served() -> None:
    found = reconcile(SAMPLES, [ran("a", 10, 50, 60)], {"a": Rated(generated=45)})
    assert found.total() == Tokens(counted=130, rated=45, short=15)


def test_a_request_that_was_tried_again_is_billed_once() -> None:
    """It broke after 50 tokens, and made 60 when it was tried again; the bill has those 60, or less, or more than there are."""
    served = [ran("a", 10, 20, 50, Status.FAILED), ran("a", 30, 50, 60, attempt=1)]
    for billed, rated in ((60, 60), (45, 45), (70, 70), (115, 115)):
        found = reconcile(SAMPLES, served, {"a": Rated(100, billed)})
        assert found.total() == Tokens(counted=130, rated=rated, short=110 - billed), billed
        assert found.total().unbilled == 130 - billed
        assert found.total(side=Side.PROMPT) == Tokens(counted=400, rated=100, short=100)
    assert reconcile(SAMPLES, served, {"a": Rated()}).total() == Tokens(counted=130, rated=110)


def test_of_a_request_on_two_replicas_each_has_its_part_of_the_bill() -> None:
    """The prompt is computed here, and the answer made there, the later."""
    samples = [*SAMPLES, counter(0, 0, replica="s"), counter(120, 60, 100, replica="s")]
    served = [ran("a", 10, 10, 0), ran("a", 11, 50, 60, replica="s")]
    for order in (served, served[::-1]):
        found = reconcile(samples, order, {"a": Rated(100, 60)})
        assert found.total("s") == Tokens(counted=60, rated=60)
        assert found.total("s", Side.PROMPT) == Tokens(counted=100, rated=100)
        assert found.total("r", Side.PROMPT) == Tokens(counted=400, short=100)


def test_what_ran_outside_the_counters_stretch_is_left_out() -> None:
    """Ten tokens a second from 100 to 140: half of them behind the last counter."""
    found = reconcile(SAMPLES, [ran("a", 100, 140, 400), ran("b", 200, 210, 5)], {"a": Rated(), "b": Rated()})
    assert found.total().rated == 200


def test_the_newest_word_on_an_execution_counts_and_a_retry_is_another() -> None:
    served = [
        ran("a", 10, 20, 5, Status.RUNNING),
        ran("a", 10, 50, 60, Status.ABORTED, seq=1),
        ran("a", 70, 80, 8, attempt=1),
    ]
    assert reconcile(SAMPLES, served, {}).total() == Tokens(counted=130, aborted=60, missing=8)
    assert reconcile(SAMPLES, served[:1], {}).total() == Tokens(counted=130, running=5)


def test_ranks_are_replicas_of_their_own_where_there_are_several() -> None:
    samples = [counter(0, 0), counter(60, 10), counter(0, 0, rank="1"), counter(60, 7, rank="1")]
    found = reconcile(samples, [ran("a", 10, 20, 7, replica="r/1")], {"a": Rated()})
    assert found.total("r/1") == Tokens(counted=7, rated=7)
    assert found.total("r/0") == Tokens(counted=10)


def test_what_cannot_be_said_is_named() -> None:
    samples = [*SAMPLES, counter(180, 20, 5)]
    found = reconcile(samples, [ran("a", 10, 20, 7, replica="s")], {"z": Rated()})
    assert found.resets == {"r": 1}
    assert found.uncounted == {"s": 1}
    assert found.unplaced == 1
    assert found.total().counted == 150


REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 500),  # first token
        st.integers(0, 90),  # how long
        st.integers(0, 200),  # tokens
        st.sampled_from([Status.OK, Status.ABORTED, Status.FAILED]),
        st.booleans(),  # billed
        st.booleans(),  # told of at all
    ),
    max_size=20,
)


@settings(max_examples=200)
@given(REQUESTS, st.sets(st.integers(1, 599), max_size=30), st.randoms())
def test_every_token_has_its_name_whatever_the_order_and_the_scrapes(
    requests: list[tuple[int, int, int, Status, bool, bool]], scrapes: set[int], order: object
) -> None:
    """The engine counts each request's tokens at its end; it is scraped before all and after all, and at some times."""
    ends = [(first + length, tokens) for first, length, tokens, *_ in requests]
    samples = [
        counter(at_s, sum(tokens for end_s, tokens in ends if end_s <= at_s)) for at_s in sorted({0, 600, *scrapes})
    ]
    served, rated = [], {}
    expected = Tokens(counted=sum(tokens for _, tokens in ends))
    for number, (first, length, tokens, status, billed, told) in enumerate(requests):
        if told:
            served.append(ran(f"e{number}", first, first + length, tokens, status))
            field = "rated" if billed else {"ok": "missing"}.get(status.value, status.value)
            setattr(expected, field, getattr(expected, field) + tokens)
        if billed:
            rated[f"e{number}"] = Rated()
    found = reconcile(samples, served, rated)
    assert found.total() == expected
    assert found.total().unseen == sum(tokens for _, _, tokens, _, _, told in requests if not told)
    assert found.unplaced == sum(billed and not told for *_, billed, told in requests)
    assert reconcile(samples[::-1], served[::-1], rated).minutes == found.minutes
