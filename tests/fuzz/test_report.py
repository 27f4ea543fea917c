"""Tables and documents of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzz.campaign import Table
from tests.fuzz.report import document, markdown, write_json


def filled() -> Table:
    table = Table("test")
    for outcome in ("answered", "refused", "refused"):
        table.count(outcome)
    table.facts["leaks"] = 1
    table.find("leaks: a process")
    return table


def test_a_table_shows_every_count_and_finding() -> None:
    lines = markdown(filled(), ("end", "inputs")).splitlines()
    assert lines[:5] == [
        "| end | inputs |",
        "| --- | ---: |",
        "| refused | 2 |",
        "| answered | 1 |",
        "| **all** | **3** |",
    ]
    assert "| leaks | 1 |" in lines
    assert "- leaks: a process" in lines


def test_a_document_is_changed_between_its_marks_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- fuzz: a -->\nold\n<!-- end of fuzz -->\nafter\n")
    document(page, "a", "new")
    expected = "before\n<!-- fuzz: a -->\n\nnew\n\n<!-- end of fuzz -->\nafter\n"
    assert page.read_text() == expected
    document(page, "a", "new")
    assert page.read_text() == expected
    with pytest.raises(ValueError, match="no marks for 'b'"):
        document(page, "b", "new")


def test_json_has_the_same_counts(tmp_path: Path) -> None:
    write_json(tmp_path / "folder" / "run.json", [filled()], {"seed": 1})
    values = json.loads((tmp_path / "folder" / "run.json").read_text())
    assert values["about"] == {"seed": 1}
    assert values["tables"][0]["counts"] == {"refused": 2, "answered": 1}
    assert values["tables"][0]["found"] == 1
