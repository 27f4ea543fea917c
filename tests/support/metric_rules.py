"""What ``promtool check metrics`` finds fault with, for machines without it.

The rules are those of promlint in Prometheus' client_golang, read from its documentation of names
(prometheus.io/docs/practices/naming) and applied to the text as it is served.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

BASE_UNITS = ("amperes", "bytes", "celsius", "grams", "joules", "meters", "seconds", "volts")
PREFIXES = (
    *("pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo"),
    *("kibi", "mega", "mibi", "giga", "gibi", "tera", "tebi", "peta", "pebi"),
)
OTHER_UNITS = (
    *("minutes", "hours", "days", "weeks", "kelvin", "fahrenheit", "inches", "yards", "miles"),
    *("bits", "calories", "pounds", "ounces"),
)
FOREIGN_UNITS = {*OTHER_UNITS, *(f"{prefix}{unit}" for prefix in PREFIXES for unit in BASE_UNITS)}
ABBREVIATIONS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
TYPES = ("counter", "gauge", "histogram", "summary")
NAME = re.compile(r"[a-z_][a-z0-9_]*")


def faults(text: str) -> list[str]:
    """List what is wrong with metrics in the text format; raises ValueError for what is none."""
    families = list(text_string_to_metric_families(text))
    found = [fault for family in families for fault in _faults_of(family)]
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    series = Counter(line.rpartition(" ")[0] for line in lines)
    found += [f"{name}: the series is there twice" for name, count in series.items() if count > 1]
    for mark in ("HELP", "TYPE"):
        told = (line.split(" ") for line in text.splitlines() if line.startswith(f"# {mark} "))
        names = Counter(words[2] for words in told)
        found += [f"{name}: has {mark} twice" for name, count in names.items() if count > 1]
    return found


def _faults_of(family: Metric) -> Iterator[str]:
    # The parser takes the ending of a counter's name away.
    name = f"{family.name}_total" if family.type == "counter" else family.name
    parts = name.split("_")
    if not family.documentation.strip():
        yield f"{name}: no help"
    if family.type not in TYPES:
        yield f"{name}: no type"
    if family.type == "counter" and any(not s.name.endswith("_total") for s in family.samples):
        yield f"{name}: a counter's name ends with _total"
    if family.type != "counter" and name.endswith("_total"):
        yield f"{name}: only a counter's name ends with _total"
    if family.type != "histogram" and name.endswith(("_bucket", "_count", "_sum")):
        yield f"{name}: the name ends as a histogram's does"
    if any(part in TYPES for part in parts):
        yield f"{name}: the type is in the name"
    if not NAME.fullmatch(name):
        yield f"{name}: not in snake_case"
    for part in parts:
        if part in FOREIGN_UNITS or part in ABBREVIATIONS:
            yield f"{name}: {part} is no base unit in full"
    labels = {label for sample in family.samples for label in sample.labels}
    reserved = {"le": "histogram", "quantile": "summary"}
    for label in labels:
        if not NAME.fullmatch(label):
            yield f"{name}: the label {label} is not in snake_case"
        if reserved.get(label, family.type) != family.type:
            yield f"{name}: the label {label} is a {reserved[label]}'s"
