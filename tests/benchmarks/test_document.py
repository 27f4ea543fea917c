"""The marks of docs/benchmarks.md, and what is written between them."""

from __future__ import annotations

import pytest

from benchmarks.document import MARKED, BadMarks, renewed
from benchmarks.pictures import PICTURES
from benchmarks.report import ALL, SECTIONS
from tests.docs.markdown import links
from tests.shared_models import REPOSITORY

TEXT = "before\n<!-- bench: one -->\nold\n<!-- end of bench -->\nafter\n"


def test_a_part_takes_the_place_of_the_old_one() -> None:
    new = renewed(TEXT, {"one": "| new |\n"})
    assert new == "before\n<!-- bench: one -->\n\n| new |\n\n<!-- end of bench -->\nafter\n"
    assert renewed(new, {"one": "| new |\n"}) == new


def test_what_no_part_is_for_stays() -> None:
    two = TEXT + TEXT.replace("one", "two")
    new = renewed(two, {"two": "| new |\n"})
    assert new == TEXT + renewed(TEXT.replace("one", "two"), {"two": "| new |\n"})


@pytest.mark.parametrize(
    "text",
    [
        "no marks at all\n",
        TEXT + TEXT,
        TEXT.replace("one", "other"),
        TEXT.replace("<!-- end of bench -->\n", ""),
        TEXT + "<!-- bench: two -->\n",
    ],
)
def test_a_document_with_other_marks_is_refused(text: str) -> None:
    with pytest.raises(BadMarks):
        renewed(text, {"one": "| new |\n"})


PAGES = {"benchmarks.md": ("machine", "targets", *SECTIONS, "peers"), "devices.md": ("devices",)}


@pytest.mark.parametrize("page", PAGES)
def test_the_projects_documents_have_a_place_for_every_part(page: str) -> None:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    parts = {name: f"what {name} said\n" for name in PAGES[page]}
    assert {found[2] for found in MARKED.finditer(text)} == set(parts)
    new = renewed(text, parts)
    for part in parts.values():
        assert new.count(part) == 1


@pytest.mark.parametrize("page", PAGES)
def test_the_projects_documents_show_the_pictures_that_are_drawn(page: str) -> None:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    shown = {link for link in links(text) if link.endswith(".svg")}
    drawn = {name for name, (section, *_) in PICTURES.items() if section in PAGES[page]}
    assert shown == {f"pictures/{name}.svg" for name in drawn}


def test_every_section_stands_on_a_page() -> None:
    assert {part for parts in PAGES.values() for part in parts} == {"machine", "targets", *ALL}
