"""The text of a metrics page, read by the library of those who made the format."""

from collections.abc import Iterator
from decimal import Decimal

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

from engine.cost.pages import Page, Series, read_engines, read_gpus

OPEN_METRICS = "application/openmetrics-text"


class BadPage(ValueError):
    """The text is no metrics page. The message quotes the line that cannot be read."""


def read_series(text: str, content_type: str = "text/plain") -> Iterator[Series]:
    """The lines of the page. Histograms' buckets and `_created` are lines too. Raises BadPage.

    The library reads numbers as floats; the shortest text that gives the same float is taken for what was written,
    which it is for up to 15 digits."""
    parse = open_metrics if content_type.startswith(OPEN_METRICS) else prometheus_text
    try:
        for family in parse(text):
            for sample in family.samples:
                counted = family.type in ("counter", "unknown")
                name = sample.name.removesuffix("_total") if counted else sample.name
                time_us = None if sample.timestamp is None else round(float(sample.timestamp) * 1_000_000)
                yield Series(name, family.type, dict(sample.labels), Decimal(repr(sample.value)), time_us)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise BadPage(f"no metrics page: {str(error)[:200]}") from error


def read_page(text: str, content_type: str, scraped_us: int, replica: str) -> Page:
    """What a page says of GPUs and of inference engines, whichever it is. Raises BadPage."""
    series = list(read_series(text, content_type))
    gpus, engines = read_gpus(series, scraped_us), read_engines(series, scraped_us, replica)
    return Page(gpus.samples + engines.samples, gpus.faults + engines.faults)
