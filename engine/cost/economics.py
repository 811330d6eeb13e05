"""What models and customers earn and cost in a stretch of time: direct, and loaded with what no request took.

Pure sums over the rows of attribution. Everything is integer pico-units of one currency, and what is spread adds up to what
there was to spread, exactly."""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct, field

from engine.cost.gpu_rates import PPM
from engine.cost.rollup import Key, Sums
from engine.cost.split import largest_remainder
from engine.cost.token_costs import ModelTokenCosts, TokenClass
from engine.cost.window import Bucket
from engine.money import round_half_even

PER_TOKENS: Final = 1_000_000  # unit costs are per so many tokens
NOBODY: Final = ""  # an account: nobody is known to have asked, or nobody bears it
Place = tuple[str, str]  # model, account
_IDLE: Final = (Bucket.COLD_START, Bucket.HARD_IDLE, Bucket.UNATTRIBUTED)


class Costs(Struct):
    """Of the stretch, by replica: what its requests took, and what none did."""

    direct: dict[str, dict[Place, int]] = field(default_factory=dict)
    rest: dict[str, dict[Bucket, int]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)  # of the replicas: what they were there for
    counts: dict[str, Sums] = field(default_factory=dict)  # by model: executions and tokens, and what is not known
    unknown: set[Place] = field(default_factory=set)  # whose cost is not known for all their executions
    idle_unknown: int = 0  # windows whose cost is not known
    tokens: dict[str, ModelTokenCosts] = field(default_factory=dict)

    def add(self, rows: Mapping[Key, Sums], tokens: Mapping[str, ModelTokenCosts]) -> None:
        """Of one partition; a replica is in one only."""
        for key, sums in rows.items():
            if key.bucket is Bucket.DIRECT:
                self._add_direct(key, sums)
                continue
            self.models[key.replica] = key.model
            rest = self.rest.setdefault(key.replica, {})
            rest[key.bucket] = rest.get(key.bucket, 0) + sums.amount
            self.idle_unknown += sums.unknown
        for model, costs in tokens.items():
            into = self.tokens.setdefault(model, ModelTokenCosts())
            for name in costs.__struct_fields__:
                setattr(into, name, getattr(into, name) + getattr(costs, name))

    def _add_direct(self, key: Key, sums: Sums) -> None:
        place = key.model, key.account or NOBODY
        direct = self.direct.setdefault(key.replica, {})
        direct[place] = direct.get(place, 0) + sums.amount
        if sums.unknown:
            self.unknown.add(place)
        counts = self.counts.setdefault(key.model, Sums())
        counts.amount += sums.amount
        counts.unknown += sums.unknown
        counts.requests += sums.requests
        counts.computed += sums.computed
        counts.cached += sums.cached
        counts.output += sums.output


class Idle(Struct, frozen=True):
    """Who bears what no request took: those who used the replica, in proportion to what they took of it, unless `payers`
    names an account for the replica's model; with `spread` False nobody does."""

    spread: bool = True
    payers: Mapping[str, str] = {}  # account by model


class Takings(Struct, frozen=True):
    """What was charged for requests of a model to an account."""

    model: str
    account: str
    amount: int
    unserved: int = 0  # of the requests: nobody is known to have served them


class Line(Struct):
    """A model and an account. `account` NOBODY: nobody is known."""

    model: str
    account: str
    direct: int = 0
    loaded: int = 0  # direct, and the share of what no request took
    revenue: int = 0
    known: bool = True  # False: the cost of some executions is not
    unserved: int = 0  # requests that were charged, and nobody is known to have served

    @property
    def margin(self) -> int | None:
        """Revenue less loaded cost; None while that is not known of any request."""
        return self.revenue - self.loaded if self.known and not self.unserved else None


class ModelLine(Struct):
    """A model: its accounts' lines, added up, and its tokens."""

    model: str
    direct: int
    loaded: int
    revenue: int
    known: bool
    unserved: int
    requests: int
    counts: dict[TokenClass, int]
    costs: dict[TokenClass, int]  # direct, by class
    unsplit: int  # direct, of tokens whose work no profile tells

    @property
    def margin(self) -> int | None:
        """Revenue less loaded cost; None while that is not known of any request."""
        return self.revenue - self.loaded if self.known and not self.unserved else None

    def unit_cost(self, token_class: TokenClass, *, loaded: bool) -> int | None:
        """Pico-units per 1,000,000 tokens, half-even. None where it is not known: no tokens, or none that were split."""
        ratio = self._unit(token_class, loaded=loaded)
        return None if ratio is None else round_half_even(*ratio)

    def price_floor(self, token_class: TokenClass, margin_ppm: int) -> int | None:
        """The least price per 1,000,000 tokens of which the loaded cost leaves the margin: rounded up."""
        ratio = self._unit(token_class, loaded=True)
        if ratio is None:
            return None
        numerator, denominator = ratio
        return -(-numerator * PPM // (denominator * (PPM - margin_ppm)))

    def _unit(self, token_class: TokenClass, *, loaded: bool) -> tuple[int, int] | None:
        count, cost = self.counts[token_class], self.costs[token_class]
        if not count or self.direct == self.unsplit or not self.known:
            return None
        if loaded:  # each class bears of the model's load what it took of its direct cost
            return cost * self.loaded * PER_TOKENS, count * self.direct
        return cost * PER_TOKENS, count


class Economics(Struct, frozen=True):
    """The stretch. All `loaded` and `unspread` are all `buckets`."""

    buckets: dict[Bucket, int]
    lines: list[Line]
    models: list[ModelLine]
    unspread: int  # what no request took, and nobody bears
    unknown: int  # executions and windows whose cost is not known

    @property
    def utilisation_ppm(self) -> int | None:
        """Which part of what the GPUs cost requests took, rounded down; None where they cost nothing."""
        whole = sum(amount for bucket, amount in self.buckets.items() if bucket is not Bucket.OVERHEAD)
        return self.buckets[Bucket.DIRECT] * PPM // whole if whole else None


def at_utilisation(costs: Costs, ppm: int) -> Costs:
    """The same requests on as many GPUs as are used to `ppm` millionths: what requests took stays, replicas without any are
    gone, and overhead goes with the GPUs."""
    rest: dict[str, dict[Bucket, int]] = {}
    for replica, direct in costs.direct.items():
        took, before = sum(direct.values()), costs.rest.get(replica, {})
        gpus = took + sum(before.get(bucket, 0) for bucket in _IDLE)
        needed = round_half_even(took * PPM, ppm)
        overhead = round_half_even(before.get(Bucket.OVERHEAD, 0) * needed, gpus) if gpus else 0
        rest[replica] = {Bucket.HARD_IDLE: needed - took, Bucket.OVERHEAD: overhead}
    return Costs(costs.direct, rest, costs.models, costs.counts, costs.unknown, costs.idle_unknown, costs.tokens)


def economics(costs: Costs, takings: Iterable[Takings], idle: Idle) -> Economics:
    """All of the stretch."""
    lines: dict[Place, Line] = {}
    buckets = dict.fromkeys(Bucket, 0)
    for direct in costs.direct.values():
        for place, amount in direct.items():
            line = _line(lines, place)
            line.direct += amount
            line.loaded += amount
            buckets[Bucket.DIRECT] += amount
    unspread = 0
    for replica, rest in costs.rest.items():
        amount = sum(rest.values())
        for bucket, some in rest.items():
            buckets[bucket] += some
        shares = _bearers(costs, replica, idle)
        if not shares:
            unspread += amount
            continue
        places = sorted(shares)
        for place, part in zip(places, largest_remainder(amount, [shares[place] for place in places]), strict=True):
            _line(lines, place).loaded += part
    for each in takings:
        line = _line(lines, (each.model, each.account))
        line.revenue += each.amount
        line.unserved += each.unserved
    for place in costs.unknown:
        _line(lines, place).known = False
    ordered = [lines[place] for place in sorted(lines)]
    unknown = costs.idle_unknown + sum(counts.unknown for counts in costs.counts.values())
    return Economics(buckets, ordered, _models(costs, ordered), unspread, unknown)


def _line(lines: dict[Place, Line], place: Place) -> Line:
    line = lines.get(place)
    if line is None:
        line = lines[place] = Line(*place)
    return line


def _bearers(costs: Costs, replica: str, idle: Idle) -> dict[Place, int]:
    """Weights of those who bear what no request took of the replica; none: nobody does."""
    model = costs.models.get(replica)
    if model is not None and model in idle.payers:
        return {(model, idle.payers[model]): 1}
    if not idle.spread:
        return {}
    users = {place: amount for place, amount in costs.direct.get(replica, {}).items() if amount}
    if users or model is None:
        return users
    for direct in costs.direct.values():  # it served nobody: it was there for those who used its model elsewhere
        for place, amount in direct.items():
            if place[0] == model and amount:
                users[place] = users.get(place, 0) + amount
    return users


def _models(costs: Costs, lines: list[Line]) -> list[ModelLine]:
    found: dict[str, ModelLine] = {}
    for line in lines:
        model = found.get(line.model)
        if model is None:
            tokens = costs.tokens.get(line.model, ModelTokenCosts())
            counts = costs.counts.get(line.model, Sums())
            model = found[line.model] = ModelLine(
                *(line.model, 0, 0, 0, True, 0, counts.requests),
                {
                    TokenClass.UNCACHED_INPUT: counts.computed,
                    TokenClass.CACHED_INPUT: counts.cached,
                    TokenClass.OUTPUT: counts.output,
                },
                {each: tokens.of(each) for each in TokenClass},
                0,
            )
        model.direct += line.direct
        model.loaded += line.loaded
        model.revenue += line.revenue
        model.known = model.known and line.known
        model.unserved += line.unserved
    for model in found.values():
        model.unsplit = model.direct - sum(model.costs.values())
    return list(found.values())
