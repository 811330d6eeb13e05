"""What is sold in a seed: the example catalogue, and beside it meters and prices drawn at random, of every kind there is.

There are few, each worked out once for all seeds of a process: a seed takes one of them.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

from config.catalogue import load_file
from engine.catalog import Catalogue, document_json, load_catalogue
from loadtest.oracle.catalogue import Version
from loadtest.workload import PLANS, decimal
from tests.engine.random_catalogues import PLAN, RandomCatalogue, random_usage

CATALOGUE_FILE: Final = Path(__file__).parents[2] / "config" / "catalogue.example.yaml"
DRAWS: Final = (*range(1, 12), 20)  # of such seeds that every kind of meter is among them
DRAWN: Final = len(DRAWS)  # catalogues with meters drawn at random; number 0 is the example alone
VERSIONS: Final = (1, 2)


@lru_cache(maxsize=(DRAWN + 1) * len(VERSIONS))
def compiled(version: int, document: bytes) -> Catalogue:
    """As `load_catalogue` does it. What a price becomes in a part of a month is worked out once for all seeds: it is a
    function of the price and the part."""
    catalogue = load_catalogue(version, document)
    for price in [price for plan in catalogue.plans.values() for price in plan.prices.values()]:
        for each in (price, price.undiscounted):
            if each is not None and each.in_part is not None:
                each.in_part = lru_cache(maxsize=1_000)(each.in_part)
    return catalogue


@lru_cache(maxsize=1)
def _example() -> dict[int, dict[str, Any]]:
    """Two versions: the example, with shared tiers that a seed may come to the end of, and the same at other prices."""
    first = orjson.loads(document_json(load_file(CATALOGUE_FILE)))
    for plan in first["plans"].values():
        for shared in plan.get("shared_tiers", {}).values():
            for name in shared["prices"]:
                plan["prices"][name]["tiers"][0]["up_to"] = "30000"
    second = orjson.loads(orjson.dumps(first))
    for plan in second["plans"].values():
        for price in plan["prices"].values():
            for part in [price, *price["tiers"]]:
                if part["amount"] is not None:
                    part["amount"] = decimal(int(float(part["amount"]) * 1.37 * 10**6) * 10**6 + 1)
    return {1: first, 2: second}


@lru_cache(maxsize=DRAWN + 1)
def documents(number: int) -> dict[int, bytes]:
    """Catalogue `number` as it is published, version by version."""
    drawn = RandomCatalogue(Random(f"sale {DRAWS[number - 1]}")) if number else None
    published = {}
    for version, example in _example().items():
        body = orjson.loads(orjson.dumps(example))
        for plan in PLANS if drawn else ():
            assert drawn is not None
            terms = orjson.loads(document_json(drawn.version()))
            body["meters"] |= terms["meters"]
            body["dimensions"] |= terms.get("dimensions", {})
            body["plans"][plan]["prices"] |= terms["plans"][PLAN]["prices"]
        published[version] = orjson.dumps(body)
    return published


def library(number: int) -> dict[int, Catalogue]:
    """Catalogue `number` as the engine reads it."""
    return {version: compiled(version, document) for version, document in documents(number).items()}


@lru_cache(maxsize=DRAWN + 1)
def oracle_library(number: int) -> dict[int, Version]:
    """Catalogue `number` as the oracle reads it."""
    return {version: Version(version, orjson.loads(document)) for version, document in documents(number).items()}


Usage = tuple[str, dict[str, Any]]  # an event's type and its data


class Sales:
    """Usage of all that is sold beside requests to models: of a few kinds in each seed, so that what they add up to matters."""

    def __init__(self, number: int, random: Random) -> None:
        self._random = random
        kinds: list[Callable[[], Usage]] = [self._search, self._tokens, self._picture, self._partner]
        kinds += [self.images, self._seat, self._storage, self._payment, self._gpu, self._volume, self._outcome]
        self._kinds = random.sample(kinds, random.randint(1, 4))
        if number:
            self._kinds += [lambda: random_usage(random)] * random.randint(1, 4)

    def usage(self) -> Usage:
        """The type and the data of the next event."""
        return self._random.choice(self._kinds)()

    def _search(self) -> Usage:
        data = {
            "status": self._random.choice(["completed", "aborted", "failed"]),
            "results": self._random.randrange(30),
        }
        zone = self._random.choice([None, "eu-west-1", "us-east-1"])
        return "web.search", data | ({} if zone is None else {"zone": zone})

    def _tokens(self) -> Usage:
        cached, fresh, written = (self._random.randrange(9_000) for _ in range(3))
        if self._random.random() < 0.5:
            usage = {"input_tokens": fresh, "cache_read_input_tokens": cached, "output_tokens": written}
            return "llm.usage", {"usage_shape": "anthropic", "usage": usage}
        usage = {"prompt_tokens": fresh, "completion_tokens": written, "total_tokens": fresh + written}
        details = {"prompt_tokens_details": {"cached_tokens": cached}}  # more than the prompt, now and then
        return "llm.usage", {"usage_shape": "openai_chat", "usage": usage | details}

    def _picture(self) -> Usage:
        size = {"width": self._random.choice([512, 1_000, 4_096]), "height": self._random.choice([512, 999])}
        return "image.request", size | ({"n": 3} if self._random.random() < 0.3 else {})

    def images(self) -> Usage:
        return "image.generated", {"images": self._random.choice([1, 40, 101, 700])}

    def _seat(self) -> Usage:
        return "seat.used", {"user": f"user-{self._random.randrange(5)}"}

    def _storage(self) -> Usage:
        return "storage.used", {"gigabytes": self._random.randrange(500)}

    def _volume(self) -> Usage:
        number = self._random.randrange(3)
        return "volume.resized", {"volume": f"volume-{number}", "gigabytes": self._random.choice([0, 10, "2.5"])}

    def _partner(self) -> Usage:
        return "partner.request", {"cost": "0.31"} if self._random.random() < 0.7 else {}

    def _gpu(self) -> Usage:
        number = self._random.randrange(5)
        said = {"state": self._random.choice(["start", "heartbeat", "stop"]), "gpus": "0.5" if number % 2 else 8}
        return "gpu.session", said | {"session": f"session-{number}", "gpu": "h100" if number < 3 else "a100"}

    def _outcome(self) -> Usage:
        return "outcome", {"state": self._random.choice(["resolved", "resolved", "handed over"])}

    def _payment(self) -> Usage:
        return "payment.made", {"amount": f"{self._random.randrange(90)}.07"}
