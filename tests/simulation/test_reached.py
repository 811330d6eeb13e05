"""What seeds come to is counted under the names of the table, and nothing under any other."""

from tests.engine.bench import Bench, versions
from tests.simulation.reached import REACHABLE, reached


def test_what_came_about_is_counted_by_name() -> None:
    bench = Bench(*versions())
    bench.open()
    bench.cap("1", beyond="waived")
    bench.top_up("0", "5")
    assert reached({0: bench.partition}) == {"asked": 1}
    assert bench.use(2, "x") == "rated"
    stream = bench.event(2, "x", id="run", seq=2)
    assert [bench.record(b"acme", stream), bench.record(b"acme", bench.event(1, "x", id="run", seq=1))] == [
        *("rated", "outdated")
    ]
    assert reached({0: bench.partition}) == {"asked": 1, "waived": 1, "outdated": 1}


def test_each_name_of_the_table_is_one_word_or_two() -> None:
    assert len(REACHABLE) == len(set(REACHABLE)) and {"waived", "due", "granted units"} <= set(REACHABLE)
