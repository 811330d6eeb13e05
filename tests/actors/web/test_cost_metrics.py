"""What GPUs cost, as Prometheus reads it."""

from actors.cost_store import CostStatus, CostSum
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage


def spent(model: str, bucket: str, currency: str, amount: int, unknown: int) -> CostSum:
    return CostSum("", model, "", 0, bucket, currency, amount, unknown, 0, 0, 0, 0)


async def scraped(client: Client) -> str:
    return (await client.get("/metrics")).body.decode()


async def test_costs_are_told_by_model_bucket_and_currency(stage: Stage, client: Client) -> None:
    stage.costs.partitions = [CostStatus(2, 1, 9, 77, 1_795_000_000_500_000, 0, "a")]
    stage.costs.rows = [
        spent("atlas", "direct", "USD", 1_500_000_000_000, 0),
        spent("atlas", "hard_idle", "USD", 250_000_000_000, 0),
        spent("odd", "direct", "USD", 0, 2),
        spent("odd", "direct", "", 0, 1),  # before rates were known
    ]
    text = await scraped(client)
    for series in (
        'tallygate_cost_next_offset{partition="2"} 77.0',
        'tallygate_cost_settled_seconds{partition="2"} 1.7950000005e+09',
        'tallygate_cost_day_amount{bucket="direct",currency="USD",model="atlas"} 1.5',
        'tallygate_cost_day_amount{bucket="hard_idle",currency="USD",model="atlas"} 0.25',
        'tallygate_cost_day_unknown{bucket="direct",model="odd"} 3.0',
    ):
        assert series in text
    assert 'currency=""' not in text


async def test_where_postgres_is_away_there_is_no_series_and_the_others_stay(stage: Stage, client: Client) -> None:
    stage.costs.rows = [spent("atlas", "direct", "USD", 1, 0)]
    stage.costs.away = True
    text = await scraped(client)
    assert "tallygate_cost_day_amount{" not in text
    assert "tallygate_shards_answering 1.0" in text
