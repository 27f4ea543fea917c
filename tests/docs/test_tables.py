"""The tables that are made from the code are what the code says."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from model_loader_wire.limits import Limits
from model_loader_wire.shared_limits import SHARED_LIMITS
from tests.docs.markdown import documents, name_of
from tests.docs.tables import LIMIT_LEVELS, MARKED, TABLES, renewed


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_the_tables_of_a_document_are_the_codes(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert renewed(text) == text, "python -m tests.docs.tables writes them anew"
    marks = [line for line in text.splitlines() if line.startswith("<!-- table:")]
    assert len(marks) == len(MARKED.findall(text))


def test_every_table_is_shown_once() -> None:
    shown = Counter(
        found[2]
        for document in documents()
        for found in MARKED.finditer(document.read_text(encoding="utf-8"))
    )
    assert shown == Counter(TABLES.keys())


def test_a_changed_table_is_noticed() -> None:
    text = "<!-- table: causes -->\n\n| old |\n\n<!-- end of table -->\n"
    assert "out-of-memory" in renewed(text)


def test_every_limit_is_named_once_by_its_level() -> None:
    names = Counter(name for _, *cells in LIMIT_LEVELS for cell in cells for name in cell.split())
    assert names == Counter([*SHARED_LIMITS, *(field.name for field in fields(Limits))])
