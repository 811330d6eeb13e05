"""What a catalogue says of meters and dimensions, and how it becomes what rates. Every breach is told to a `Tell`."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, cast

from msgspec import Struct

from engine.corrections import FORMS
from engine.events import is_text
from engine.meters.aggregates import POINTS, POINTS_MAX, RANKED, UNIQUE_LIMIT, UNIQUE_MAX, Kind
from engine.meters.conditions import Condition
from engine.meters.dimensions import DIMENSION_TEXT_MAX, Band, Dimension
from engine.meters.expressions import BadExpression, Expression, compile_expression
from engine.meters.fields import keys_of
from engine.meters.hours import DAYS, Hours, Stretch
from engine.meters.meter import Meter
from engine.meters.sessions import STATE_FIELD, TIMEOUT_S, TIMEOUT_S_MAX, SessionFields
from engine.meters.tokens import BUCKETS, SIDES, TOKENS, ShapeName, TokenUsage
from engine.money import NANO, NotADecimal, parse_quantity
from engine.periods import UnknownZone, zone_of

BANDS_MAX: Final = 100
_ADDING_UP: Final = ("count", "sum", "duration", "time_weighted_sum")
VALUES_MAX: Final = 1_000
CONDITIONS_MAX: Final = 16

Tell = Callable[[tuple[str | int, ...], str], None]  # (keys from the root, what to do about it)


class BandDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """A band takes the numbers up to and with `up_to` that the one before it does not; the last one has none."""

    name: str
    up_to: str | None = None


class HoursDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, rename={"from_": "from"}):
    """A stretch of the day by the wall clock, `from` 08:00 `to` 20:00, on these days (default: all). One that does not end
    behind its beginning ends on the next day."""

    name: str
    from_: str
    to: str
    days: tuple[str, ...] = DAYS


class DimensionDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """`of`: the field it comes from, if that has another name; or `expression`, for bands. With `hours` it comes from no
    field: the time at which the event is rated has its name from the first stretch of the `zone` (default UTC) that it
    lies in, else from `otherwise`."""

    of: str | None = None
    bands: tuple[BandDefinition, ...] = ()
    values: dict[str, str] = {}
    otherwise: str | None = None
    default: str | None = None
    expression: str | None = None
    hours: tuple[HoursDefinition, ...] = ()
    zone: str | None = None


class ConditionDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """All that is said must hold. `exists: true` with anything else: an event without the field does not count."""

    one_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    above: str | None = None
    at_least: str | None = None
    below: str | None = None
    at_most: str | None = None
    exists: bool | None = None


class MeterDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """`when`: conditions by field or declared dimension; an event that does not fulfil all of them is not counted.
    `limit`: of a unique count, how many different values a cell may have in a period. `change_points`: of a max, min or
    latest, how many readings behind the answer are kept, for events that are cancelled or amended. Of a duration: `session` and
    `state` are the fields that say which session an event is of and what has become of it, `timeout_s` is how long one
    goes on of which nothing is heard; a field or an expression is what each of its seconds counts as. Of a
    time_weighted_sum: `session` is what has a level (a volume, an index), which a field or an expression says."""

    event_type: str
    aggregation: Literal[
        "count", "sum", "max", "min", "latest", "average", "unique_count", "duration", "time_weighted_sum"
    ]
    field: str | None = None
    group_by: tuple[str, ...] = ()
    when: dict[str, ConditionDefinition] = {}
    expression: str | None = None
    limit: str | None = None
    session: str | None = None
    state: str | None = None
    timeout_s: int | None = None
    change_points: int | None = None


class TokenShapeDefinition(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Of an event type. Without `shape` each event states its own; `object` is where its usage object stands."""

    shape: ShapeName | None = None
    object: str = "usage"


def _name(path: tuple[str | int, ...], value: object, tell: Tell) -> None:
    if not is_text(value, DIMENSION_TEXT_MAX):
        tell(path, "a name must be a string of 1 to 128 characters without NUL")


def _number(path: tuple[str | int, ...], text: str | None, tell: Tell) -> int | None:
    if text is None:
        return None
    try:
        return parse_quantity(text)
    except NotADecimal as error:
        tell(path, str(error))
        return None


def compile_token_shape(
    event_type: str, definition: TokenShapeDefinition, meters: Iterable[Meter], tell: Tell
) -> TokenUsage:
    """What makes buckets of the usage objects of a type, of those buckets that its meters read; its faults are told."""
    path = ("token_shapes", event_type)
    _name((*path, "object"), definition.object, tell)
    read: set[str] = set()
    for meter in meters:
        if meter.event_type != event_type:
            continue
        for name in sorted(meter.reads):
            within, _, bucket = name.partition(".")
            if within != TOKENS:
                continue
            read.add(bucket)
            if bucket not in (*BUCKETS, *SIDES):
                message = (
                    f"{event_type} has no {name}; its usage has {', '.join((*BUCKETS, *SIDES))}, each under {TOKENS}."
                )
                tell(("meters", meter.name), message)
    if not read:
        tell(
            path,
            f"no meter of {event_type} reads {TOKENS}.input_text or another of its buckets: add one, or remove this",
        )
    return TokenUsage(definition.shape, definition.object, frozenset(read))


def compile_dimension(name: str, definition: DimensionDefinition, tell: Tell) -> Dimension:
    """A declared dimension; its faults are told."""
    path = ("dimensions", name)
    _name(path, name, tell)
    if definition.zone is not None:
        tell((*path, "zone"), "is of hours, and there are none: remove it")
    for key in ("of", "otherwise", "default"):
        if getattr(definition, key) is not None:
            _name((*path, key), getattr(definition, key), tell)
    if definition.bands and (definition.values or definition.otherwise is not None):
        tell((*path, "bands"), "a dimension has bands of a number, or values of its own: not both")
    if definition.expression is not None:
        for key in ("of", "default"):
            if getattr(definition, key) is not None:
                tell((*path, key), "an expression names its fields, and what they are where they are missing, itself")
        if not definition.bands:
            tell((*path, "expression"), "is a number: give the dimension bands of it")
    elif not (definition.bands or definition.values or definition.otherwise or definition.default or definition.of):
        tell(path, "says nothing; without a declaration a dimension is the field of its name")
    if len(definition.values) > VALUES_MAX:
        tell((*path, "values"), f"a dimension has at most {VALUES_MAX} values")
    for text, value in definition.values.items():
        _name((*path, "values", text), value, tell)
    keys = keys_of(definition.values)
    for text in definition.values:
        for same in (keys.get(key) for key in keys_of([text])):
            if same is not None and definition.values[same] != definition.values[text]:
                tell((*path, "values", text), f"is the same number as {same}, and becomes something else")
    return Dimension(
        name,
        definition.expression or definition.of or name,
        _bands(path, definition.bands, tell),
        {key: definition.values[text] for key, text in keys.items()},
        definition.otherwise,
        definition.default,
        _expression((*path, "expression"), definition.expression, tell),
    )


def compile_hours(name: str, definition: DimensionDefinition, tell: Tell) -> Hours:
    """A declared dimension of hours; its faults are told."""
    path = ("dimensions", name)
    _name(path, name, tell)
    for key in ("of", "bands", "values", "default", "expression"):
        if getattr(definition, key):
            tell((*path, key), "a dimension of hours comes from no field: remove it")
    if definition.otherwise is None:
        tell((*path, "otherwise"), "is missing: name the hours that are in no stretch")
    else:
        _name((*path, "otherwise"), definition.otherwise, tell)
    if len(definition.hours) > BANDS_MAX:
        tell((*path, "hours"), f"a dimension has at most {BANDS_MAX} stretches")
    zone = definition.zone or "UTC"
    try:
        zone_of(zone)
    except UnknownZone:
        tell((*path, "zone"), f"there is no IANA time zone {zone}")
    stretches = tuple(
        _stretch((*path, "hours", place), each, tell) for place, each in enumerate(definition.hours[:BANDS_MAX])
    )
    return Hours(name, zone, stretches, definition.otherwise or "")


def _stretch(path: tuple[str | int, ...], definition: HoursDefinition, tell: Tell) -> Stretch:
    _name((*path, "name"), definition.name, tell)
    if definition.from_ == definition.to:
        tell((*path, "to"), "is where it begins: a whole day is from 00:00 to 24:00")
    if not definition.days or len(set(definition.days)) < len(definition.days) or not {*definition.days} <= {*DAYS}:
        tell((*path, "days"), f"must name each of its days once: {', '.join(DAYS)}")
    return Stretch(
        definition.name,
        _minutes((*path, "from"), definition.from_, tell),
        _minutes((*path, "to"), definition.to, tell),
        frozenset(DAYS.index(day) for day in definition.days if day in DAYS),
    )


def _minutes(path: tuple[str | int, ...], text: str, tell: Tell) -> int:
    read = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)|24:00", text)
    if read is None:
        tell(path, "must be a time of day from 00:00 to 24:00, as 08:30")
        return 0
    return 24 * 60 if read[1] is None else int(read[1]) * 60 + int(read[2])


def _expression(path: tuple[str | int, ...], text: str | None, tell: Tell) -> Expression | None:
    if text is None:
        return None
    try:
        return compile_expression(text)
    except BadExpression as error:
        tell(path, str(error))
        return None


def _bands(path: tuple[str | int, ...], definitions: tuple[BandDefinition, ...], tell: Tell) -> tuple[Band, ...]:
    bands = []
    reached: int | None = None
    if len(definitions) > BANDS_MAX:
        tell((*path, "bands"), f"a dimension has at most {BANDS_MAX} bands")
    if len({band.name for band in definitions}) < len(definitions):
        tell((*path, "bands"), "names a band twice")
    for index, definition in enumerate(definitions):
        here = (*path, "bands", index)
        _name((*here, "name"), definition.name, tell)
        last = index == len(definitions) - 1
        up_to = _number((*here, "up_to"), definition.up_to, tell)
        if last and definition.up_to is not None:
            tell((*here, "up_to"), "the last band is open: remove up_to, or add a band behind it")
        elif not last and definition.up_to is None:
            tell((*here, "up_to"), "is missing; only the last band is open")
        elif up_to is not None and reached is not None and up_to <= reached:
            tell((*here, "up_to"), "must be above the up_to of the band before it")
        reached = reached if up_to is None else up_to
        bands.append(Band(definition.name, None if last else up_to))
    return tuple(bands)


def compile_meter(
    name: str,
    definition: MeterDefinition,
    dimensions: Mapping[str, Dimension],
    hours: Mapping[str, Hours],
    tell: Tell,
) -> Meter:
    """A meter; its faults are told."""
    path = ("meters", name)
    _name(path, name, tell)
    _name((*path, "event_type"), definition.event_type, tell)
    if definition.event_type in FORMS:
        tell((*path, "event_type"), "names corrections of events, which no meter takes: choose another type")
    kind = definition.aggregation
    if kind == "unique_count" and definition.expression is not None and not definition.field:
        tell((*path, "expression"), "a unique count is of the values of a `field`")
    elif kind not in ("count", "duration") and not definition.field and definition.expression is None:
        of = "" if kind == "unique_count" else ", or an `expression` of fields"
        tell((*path, "aggregation"), f"{kind} needs `field`, the field of `data` that it is of{of}")
    if kind != "count" and definition.field is not None and definition.expression is not None:
        tell((*path, "expression"), "a meter is of a field or of an expression: not both")
    for key in ("field", "expression"):
        if definition.aggregation == "count" and getattr(definition, key) is not None:
            tell((*path, key), f"a count takes no {key}: remove it, or make the aggregation a sum")
    if len(set(definition.group_by)) != len(definition.group_by):
        tell((*path, "group_by"), "names a dimension twice")
    for dimension in definition.group_by:
        _name((*path, "group_by"), dimension, tell)
    if len(definition.when) > CONDITIONS_MAX:
        tell((*path, "when"), f"a meter has at most {CONDITIONS_MAX} conditions")
    session = _session(path, definition, tell)
    return Meter(
        name,
        definition.event_type,
        definition.field,
        definition.group_by,
        {each: dimensions[each] for each in definition.group_by if each in dimensions},
        tuple(
            _condition((*path, "when", on), on, condition, dimensions.get(on), tell)
            for on, condition in sorted(definition.when.items())
        ),
        _expression((*path, "expression"), definition.expression, tell),
        None if kind in _ADDING_UP else cast(Kind, kind),
        _limit((*path, "limit"), definition, tell),
        session,
        _points((*path, "change_points"), definition, tell),
        () if session is None else tuple(hours[each] for each in definition.group_by if each in hours),
    )


def _points(path: tuple[str | int, ...], definition: MeterDefinition, tell: Tell) -> int:
    points = definition.change_points
    if points is None:
        return POINTS
    if definition.aggregation not in RANKED:
        tell(
            path, "only a max, min or latest keeps change points: remove it; of any other each event can be taken back"
        )
    elif not 0 <= points <= POINTS_MAX:
        tell(path, f"must be 0 to {POINTS_MAX} readings")
    return points


def _session(path: tuple[str | int, ...], definition: MeterDefinition, tell: Tell) -> SessionFields | None:
    of_levels = definition.aggregation == "time_weighted_sum"
    if definition.aggregation != "duration":
        for key in ("state", "timeout_s") if of_levels else ("session", "state", "timeout_s"):
            if getattr(definition, key) is not None:
                tell((*path, key), "belongs to the aggregation duration: remove it")
        if not of_levels:
            return None
    for key in ("session", "state"):
        if getattr(definition, key) is not None:
            _name((*path, key), getattr(definition, key), tell)
    if definition.session is None:
        what = "what has the level" if of_levels else "which session an event is of"
        tell((*path, "session"), f"is missing: name the field of `data` that says {what}")
    if of_levels:
        return SessionFields(definition.session or "", None, 0)
    timeout_s = TIMEOUT_S if definition.timeout_s is None else definition.timeout_s
    if not 1 <= timeout_s <= TIMEOUT_S_MAX:
        tell((*path, "timeout_s"), f"must be 1 to {TIMEOUT_S_MAX} seconds")
    return SessionFields(definition.session or "", definition.state or STATE_FIELD, timeout_s * 1_000_000)


def _limit(path: tuple[str | int, ...], definition: MeterDefinition, tell: Tell) -> int:
    if definition.limit is None:
        return UNIQUE_MAX
    limit = _number(path, definition.limit, tell)
    if definition.aggregation != "unique_count":
        tell(path, "only a unique count has a limit: remove it")
    elif limit is not None and (limit % NANO or not 0 < limit <= UNIQUE_LIMIT * NANO):
        tell(path, f"must be a whole number of 1 to {UNIQUE_LIMIT}")
    return (limit or 0) // NANO


def _condition(
    path: tuple[str | int, ...],
    on: str,
    definition: ConditionDefinition,
    dimension: Dimension | None,
    tell: Tell,
) -> Condition:
    _name(path, on, tell)
    for key in ("one_of", "none_of"):
        if len(getattr(definition, key)) > VALUES_MAX:
            tell((*path, key), f"names at most {VALUES_MAX} values")
    limits: dict[str, Any] = {
        key: _number((*path, key), getattr(definition, key), tell) for key in ("above", "at_least", "below", "at_most")
    }
    said = definition.one_of or definition.none_of or any(getattr(definition, key) is not None for key in limits)
    if definition.exists is False and said:
        tell((*path, "exists"), "what does not exist has no value: remove the rest, or make two meters")
    if definition.exists is None and not said:
        tell(path, "says nothing; a condition has one_of, none_of, above, at_least, below, at_most or exists")
    if dimension is not None and definition.exists is not None:
        tell((*path, "exists"), f"{on} is a declared dimension, which always has a value: give it a `default` to tell")
    if (definition.above is not None and definition.at_least is not None) or (
        definition.below is not None and definition.at_most is not None
    ):
        tell(path, "says the same limit twice: `above` or `at_least`, `below` or `at_most`")
    # A quantity is a whole number of nano-units, so above x is at least the next one.
    least = limits["at_least"] if limits["above"] is None else limits["above"] + 1
    most = limits["at_most"] if limits["below"] is None else limits["below"] - 1
    if least is not None and most is not None and least > most:
        tell(path, "no number is within these limits")
    if dimension is not None and (least is not None or most is not None):
        tell(path, f"{on} is a declared dimension, a text: choose its values by one_of or none_of")
    return Condition(
        on,
        dimension,
        frozenset(keys_of(definition.one_of)) if definition.one_of else None,
        frozenset(keys_of(definition.none_of)),
        least,
        most,
        definition.exists,
    )
