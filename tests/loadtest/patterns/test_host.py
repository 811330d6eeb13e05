"""A pattern's process; that it reads, checks and rings on real servers is shown by tests/integration/test_patterns.py."""

from pathlib import Path

import pytest

from loadtest.patterns.host import made
from loadtest.patterns.pattern import Terms
from loadtest.patterns.sql_timer import SqlTimer


def test_it_is_told_which_pattern_it_is(tmp_path: Path) -> None:
    assert isinstance(made("sql_timer", tmp_path, "postgresql://nowhere", Terms(1, 1)), SqlTimer)
    with pytest.raises(ValueError, match="redis"):
        made("redis", tmp_path, "", Terms(1, 1))
