"""Nothing that a model says can speak to the terminal."""

from __future__ import annotations

import io
import math
import sys

import pytest

from model_loader_cli import terminal

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[0m[bold]b[/bold]\r\n\u202e:smile:\x9b2J"


def test_text_of_a_model_is_one_line_without_control_characters() -> None:
    line = terminal.safe(HOSTILE)
    assert line.isprintable()
    assert "\\x1b" in line
    assert "\\n" in line
    assert "\\u202e" in line
    assert "[bold]b[/bold]" in line


def test_long_text_is_cut() -> None:
    assert len(terminal.safe("x" * 10_000)) == terminal.CELL_LENGTH


def test_lines_keep_their_breaks() -> None:
    assert terminal.safe_lines("one\n\ttwo\x1b") == "one\n\ttwo\\x1b"


def test_tables_take_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    screen = terminal.console()
    rows = terminal.table("name", "[bold]count[/bold]")
    terminal.add_row(rows, HOSTILE, ":smile:")
    screen.print(rows)
    terminal.print_facts(screen, [("[red]fact[/red]", "[link=x]y[/link] :smile:")])
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]b[/bold]" in text
    assert "[red]fact[/red]" in text
    assert "[link=x]y[/link] :smile:" in text
    assert text.count(":smile:") == 3


def test_what_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert terminal.safe("é█") == "\\xe9\\u2588"
    assert not terminal.can_show("█")
    assert terminal.in_seconds(0.0001) == "100 us"


def test_json_has_no_number_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": math.inf, "b": [math.nan, (1, -math.inf)], "c": "é\x1b"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert '"inf"' in text
    assert '"nan"' in text
    assert '"-inf"' in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (3_610_798, "3.61 MB"), (2e9, "2 GB")],
)
def test_sizes(count: float, text: str) -> None:
    assert terminal.in_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000214, "21 µs"), (0.0412, "41.2 ms"), (2, "2 s"), (90, "90 s"), (125, "2 min 5 s")],
)
def test_durations(seconds: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert terminal.in_seconds(seconds) == text


def test_hours() -> None:
    assert terminal.in_seconds(2 * 3600 + 61) == "2 h 1 min"
