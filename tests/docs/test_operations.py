"""What the page for operators asks Prometheus is what the service tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.docs.markdown import CODE
from tests.shared_models import REPOSITORY
from tests.support.all_metrics import described

TEXT = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
NAME = re.compile(r"\bmodel_loader_[a-z_]+")
SELECTED = re.compile(r"(model_loader_[a-z_]+)\{([a-z_]+)(?:=|!=|=~)\"")
GROUPED = re.compile(r"by \(([a-z_, ]+)\)")
KNOWN = {name: (kind, set(labels)) for name, kind, labels, _ in described()}
ENDINGS = re.compile(r"_(?:bucket|sum|count)$")


def queries() -> Iterator[str]:
    """Yield the queries and the conditions of alerts: the code between the page's two marks."""
    marked = TEXT.partition("<!-- queries -->")[2].partition("<!-- end of queries -->")[0]
    for row in marked.splitlines():
        if NAME.search(row):
            yield next(found[2] for found in CODE.finditer(row) if NAME.search(found[2]))


def family(name: str) -> str:
    """Return the metric to which a name belongs: a histogram has three of them."""
    shorter = ENDINGS.sub("", name)
    return shorter if KNOWN.get(shorter, ("", set()))[0] == "histogram" else name


def test_every_metric_that_is_named_exists() -> None:
    assert len(list(queries())) == 20
    named = {family(name) for name in NAME.findall(TEXT)}
    assert named <= KNOWN.keys(), named - KNOWN.keys()
    for query in queries():
        for name in NAME.findall(query):
            kind = KNOWN[family(name)][0]
            assert (kind == "histogram") == (family(name) != name), query
            if kind != "gauge":
                assert re.search(r"\b(?:rate|increase)\(" + name, query), query


def test_queries_select_and_group_by_labels_that_there_are() -> None:
    for query in queries():
        for name, label in SELECTED.findall(query):
            assert label in KNOWN[family(name)][1], query
        (labels, *others) = (KNOWN[family(name)][1] for name in NAME.findall(query))
        for grouped in GROUPED.findall(query):
            wanted = set(grouped.split(", ")) - {"le"}
            assert all(wanted <= present for present in (labels, *others)), query


def test_queries_are_balanced() -> None:
    for query in queries():
        for pair in ("()", "[]", "{}"):
            assert query.count(pair[0]) == query.count(pair[1]), query
