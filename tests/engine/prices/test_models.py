"""The table of models."""

from typing import get_args, get_type_hints

from engine.catalog import PriceDefinition
from engine.prices.models import MODELS


def test_a_catalogue_may_name_every_model_and_no_other() -> None:
    assert set(get_args(get_type_hints(PriceDefinition)["model"])) == set(MODELS)


def test_each_model_stands_under_its_own_name() -> None:
    assert all(name == model.name for name, model in MODELS.items())
