"""Random prices of every model, over few units, so that a few events reach every tier."""

import random
from typing import Any, Final

from msgspec import UNSET

from engine.catalog import PriceDefinition, TierDefinition

TIERED: Final = ("graduated", "volume", "step")
MODELS: Final = ("per_unit", "graduated", "package", "volume", "step", "flat", "percentage", "dynamic")


def random_price(source: random.Random, meter: str, **where: str) -> PriceDefinition:
    """Amounts that are nothing, round, or do not divide; now and then with what stands around a model."""

    def amount() -> str:
        return source.choice(["0", "1", "2", "0.5", "0.000000000007", str(source.randrange(1, 9))])

    model: Any = source.choice(MODELS)
    per = source.choice(["1", "1", "1", "3", "7"]) if model not in ("step", "flat") else "1"
    said: dict[str, Any] = {"where": where}
    if source.random() < 0.2:
        said["included"] = source.choice(["1", "2.5", "4"])
    if source.random() < 0.2:
        said["maximum"] = str(source.randrange(30))
    if source.random() < 0.2:
        said["discount"] = source.choice(["0", "10", "33.3", "100"])
    if not {"maximum", "discount"} & said.keys() and source.random() < 0.2:
        said["commitment"] = source.choice(["0.5", "7", "60"])
        said["overage"] = source.choice(["1.5", "0.25", "3"])
    if model == "percentage":
        return PriceDefinition(meter, model, percent=source.choice(["0", "2.9", "150"]), **said)
    if model == "dynamic":
        return PriceDefinition(meter, model, factor=source.choice(["0", "1.2", "0.333333333333"]), **said)
    if model not in TIERED:
        said["amount"] = source.choice(["8", "3"]) if model == "package" and source.random() < 0.5 else amount()
        return PriceDefinition(meter, model, per=per, **said)
    ends = [str(end) for end in sorted(source.sample(range(1, 30), source.randrange(1, 4)))]
    amounts_of = [amount() for _ in [*ends, None]]
    if model == "step":
        amounts_of.sort(key=float)
    fees = model != "step" and source.random() < 0.4
    flats = [amount() if fees else UNSET for _ in amounts_of]
    tiers = [
        TierDefinition(each, per, end, flat) for each, end, flat in zip(amounts_of, [*ends, None], flats, strict=True)
    ]
    return PriceDefinition(meter, model, tiers=tuple(tiers), **said)
