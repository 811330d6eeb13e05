"""Meters: which usage events count, and what of them (law R3). `meter.py` is where to start."""

from engine.meters.aggregates import (
    RISING,
    Aggregate,
    Forgotten,
    NotCounted,
    TooManyValues,
    Unique,
    kept,
    merged,
    read_kept,
    spread,
    without,
)
from engine.meters.definitions import (
    BandDefinition,
    ConditionDefinition,
    DimensionDefinition,
    MeterDefinition,
    TokenShapeDefinition,
    compile_dimension,
    compile_hours,
    compile_meter,
    compile_token_shape,
)
from engine.meters.dimensions import DIMENSION_TEXT_MAX, BadDimension, Dimension
from engine.meters.fields import tags_of
from engine.meters.hours import Hours
from engine.meters.meter import BadQuantity, Cell, Meter
from engine.meters.sessions import LEVEL, BadSession, Heard, State
from engine.meters.tokens import ESTIMATED, MEASURED, BadUsage, TokenUsage, is_estimated

__all__ = [
    "DIMENSION_TEXT_MAX",
    "ESTIMATED",
    "LEVEL",
    "MEASURED",
    "RISING",
    "Aggregate",
    "BadDimension",
    "BadQuantity",
    "BadSession",
    "BadUsage",
    "BandDefinition",
    "Cell",
    "ConditionDefinition",
    "Dimension",
    "DimensionDefinition",
    "Forgotten",
    "Heard",
    "Hours",
    "Meter",
    "MeterDefinition",
    "NotCounted",
    "State",
    "TokenShapeDefinition",
    "TokenUsage",
    "TooManyValues",
    "Unique",
    "compile_dimension",
    "compile_hours",
    "compile_meter",
    "compile_token_shape",
    "is_estimated",
    "kept",
    "merged",
    "read_kept",
    "spread",
    "tags_of",
    "without",
]
