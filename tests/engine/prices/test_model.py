"""What the models say of themselves."""

from engine.money import NANO
from engine.prices.models import MODELS
from tests.engine.bench import priced


def test_a_price_is_marginal_as_its_model_is() -> None:
    for name, model in MODELS.items():
        assert priced([(None, 5, NANO)], model=name).marginal == model.marginal, name


def test_only_volume_has_more_than_one_set_of_terms() -> None:
    for name, model in MODELS.items():
        tiers = [(NANO, 5, NANO), (None, 5, NANO)] if model.tiered else [(None, 5, NANO)]
        assert (len(priced(tiers, model=name).terms) == 2) == (name == "volume"), name
