"""The simulated server: what it knows of itself."""

from pathlib import Path

import pytest

from loadtest.batching import (
    BATCH_MAX,
    CHUNK,
    DECODE_NS,
    FIXED_NS,
    PREFILL_NS,
    READ_NS,
    Asked,
    drawn,
    from_trace,
    serve,
)


def test_a_request_alone_pays_for_every_step() -> None:
    (ran,) = serve([Asked(5, 1_000, 3)])
    prefill = FIXED_NS + PREFILL_NS * 1_000
    decode = sum(FIXED_NS + DECODE_NS + READ_NS * (1_000 + made) for made in (1, 2))
    assert ran.truth_ns == prefill + decode
    assert (ran.scheduled_us, ran.first_us, ran.last_us) == (5, 5 + prefill // 1_000, 5 + (prefill + decode) // 1_000)


def test_two_share_what_is_fixed() -> None:
    one, two = serve([Asked(0, 100, 2), Asked(0, 100, 2)])
    assert one.truth_ns == two.truth_ns == FIXED_NS + PREFILL_NS * 100 + DECODE_NS + READ_NS * 101


def test_a_long_prompt_takes_several_steps_and_keeps_others_waiting() -> None:
    long, short = serve([Asked(0, CHUNK + 1, 1), Asked(0, 10, 1)])
    assert long.scheduled_us == 0
    assert short.scheduled_us > 0  # the first step had no tokens left
    assert long.first_us == long.last_us == short.last_us


def test_all_time_is_somebody_s_unless_nobody_is_there() -> None:
    asked = drawn(300, 1, seed=3)
    served = serve(asked)
    span_us = max(ran.last_us for ran in served) - min(ran.scheduled_us for ran in served)
    assert sum(ran.truth_ns for ran in served) <= (span_us + 2) * 1_000
    assert all(
        one.at_us <= ran.scheduled_us < ran.first_us <= ran.last_us for one, ran in zip(asked, served, strict=True)
    )


def test_no_more_run_at_once_than_there_is_room_for() -> None:
    served = serve([Asked(0, 10, 50)] * (BATCH_MAX + 5))
    first_out = min(ran.last_us for ran in served)
    assert sum(ran.scheduled_us < first_out for ran in served) == BATCH_MAX


def test_the_same_seed_draws_the_same() -> None:
    assert drawn(50, 2, seed=1) == drawn(50, 2, seed=1) != drawn(50, 2, seed=2)


@pytest.mark.parametrize("speed", [1, 2])
def test_a_trace_is_read_as_it_is_or_denser(tmp_path: Path, speed: int) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:48.6805900,396,109\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:49.0000000,1,0\n"
    )
    assert from_trace(path, speed, 2) == [Asked(0, 374, 44), Asked(2_000_000 // speed, 396, 109)]
    assert from_trace(path, speed)[2].output == 1
