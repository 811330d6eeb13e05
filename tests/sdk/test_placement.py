from hypothesis import given
from hypothesis import strategies as st

from engine.placement import partition_for
from tallygate_sdk.placement import partition_of


@given(st.text(max_size=40), st.integers(1, 64))
def test_an_account_lives_where_the_engine_says(account: str, partitions: int) -> None:
    account = account.encode(errors="replace").decode()
    assert partition_of(account, partitions) == partition_for(account.encode(), partitions)
