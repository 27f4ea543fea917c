"""Every section, run as small as can be, once: samples, figures, tables, document, pictures."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import cases, report
from benchmarks.cases import SPARSE, TAKEN_APART
from benchmarks.pictures import PICTURES, draw
from benchmarks.report import SECTIONS
from benchmarks.sections import cold, memory, throughput
from benchmarks.targets import TARGETS
from model_loader_cli.bench.comparison import AGAIN, BACK_TO_BACK, DIRECT, ECHO, IN_PROCESS, RELAYED
from tests.shared_models import REPOSITORY
from tests.support.drawing import needs_matplotlib

# The first test waits for the run of all sections: half a minute where nobody else computes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root sees a worker's memory")


def test_the_samples_are_json(tiny_run: dict[str, Any]) -> None:
    assert set(tiny_run["sections"]) == set(SECTIONS)
    assert json.loads(json.dumps(tiny_run)) == tiny_run


def test_one_call_times_every_arm(tiny_run: dict[str, Any]) -> None:
    (four,) = tiny_run["sections"]["one-call"]["models"]
    assert four["sizes"] == {"request": 4, "reply": 4}
    pair, *_ = four["pairs"]
    arms = [IN_PROCESS, IN_PROCESS + AGAIN, DIRECT, ECHO, RELAYED, TAKEN_APART]
    assert list(pair) == arms
    assert set(pair[DIRECT]["blocks"]) == {BACK_TO_BACK, SPARSE, cases.BUSY}
    assert set(pair[RELAYED]["blocks"]) == {BACK_TO_BACK}
    (copied,) = tiny_run["sections"]["one-call"]["payloads"]
    assert copied["sizes"]["request"] == copied["sizes"]["reply"] == 4000


def test_each_part_of_a_call_is_shorter_than_the_call(tiny_run: dict[str, Any]) -> None:
    (four,) = tiny_run["sections"]["one-call"]["models"]
    for pair in four["pairs"]:
        for blocks in pair[TAKEN_APART]["blocks"].values():
            for block in blocks:
                counts = {name: len(block[name]) for name in ("ns", "send", "queue", "compute")}
                assert len(set(counts.values())) == 1, counts
                for whole, send, queue, compute in zip(
                    block["ns"], block["send"], block["queue"], block["compute"], strict=True
                ):
                    assert 0 < send < whole
                    assert 0 < compute < whole
                    assert 0 <= queue < whole


def test_cold_follows_the_first_answer_step_by_step(tiny_run: dict[str, Any]) -> None:
    (four,) = tiny_run["sections"]["cold"]["models"]
    pair, *_ = four["pairs"]
    assert list(pair[cold.SERVICE]["phases"]) == list(cold.PHASES)
    assert list(pair[IN_PROCESS]["phases"]) == [name for name in cold.PHASES if name != "start"]
    assert all(taken > 0 for arm in pair.values() for taken in arm["phases"].values())
    assert {"load", "again", "answer", "connect"} == set(pair[cold.SERVICE]["blocks"])


def test_memory_sees_all_workers_answer(tiny_run: dict[str, Any]) -> None:
    pair, *_ = tiny_run["sections"]["memory"]["workers"]
    counts = pair[memory.SERVICE]["counts"]
    assert {count: seen["answers"] for count, seen in counts.items()} == {"1": 1, "3": 3}


@root_only
def test_memory_counts_what_is_private_and_what_is_shared(tiny_run: dict[str, Any]) -> None:
    samples = tiny_run["sections"]["memory"]
    pair, *_ = samples["models"][0]["pairs"]
    assert 0 < pair[memory.SERVICE]["private_bytes"] < 100e6
    counts = samples["workers"][0][memory.SERVICE]["counts"]
    one, three = (counts[count]["service_bytes"] for count in ("1", "3"))
    assert 10e6 < one < three < 1e9


def test_throughput_answers_every_caller(tiny_run: dict[str, Any]) -> None:
    samples = tiny_run["sections"]["throughput"]
    assert list(samples) == list(throughput.PARTS)
    for part, arms in throughput.PARTS.items():
        pair, *_ = samples[part]["pairs"]
        assert list(pair) == list(arms)
        for arm in pair.values():
            for blocks in arm["blocks"].values():
                for block in blocks:
                    assert all(time > 0 for time in block["ns"])
    crowd, *_ = samples["crowd"]["pairs"]
    counts = {
        condition: len(blocks[0]["counts"])
        for condition, blocks in crowd[throughput.CROWD]["blocks"].items()
    }
    assert counts == {"1 models": 1, "2 models": 2, "4 clients of one model": 4}


def test_every_part_of_the_report_is_a_table(tiny_run: dict[str, Any]) -> None:
    parts = report.parts(tiny_run)
    assert list(parts) == ["machine", "targets", *SECTIONS]
    for name, text in parts.items():
        lines = text.splitlines()
        tables = [line for line in lines if line.startswith("|")]
        assert bool(tables) == (name != "machine")
        assert all(line.endswith("|") for line in tables)
        assert "nan" not in text
    rows = report.target_rows(tiny_run["sections"])
    assert len(rows) == len(TARGETS)
    assert {row[-1] for row in rows} == {"undecided"}  # one pair decides nothing
    assert "undecided" in report.markdown(tiny_run)


def test_raw_samples_and_tables_are_written(
    tiny_run: dict[str, Any], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.publish(tiny_run, output, None)
    assert json.loads((output / "samples.json").read_text()) == tiny_run
    tables = (output / "tables.md").read_text()
    assert tables == report.markdown(tiny_run)
    assert tables in capsys.readouterr().out


def test_a_document_is_made_anew_from_samples(
    tiny_run: dict[str, Any], output: Path, tmp_path: Path
) -> None:
    command.publish(tiny_run, output, None)
    written = tmp_path / "docs" / "benchmarks.md"
    written.parent.mkdir()
    shutil.copy(DOCUMENT, written)
    arguments = ["--samples", str(output / "samples.json"), "--output", str(tmp_path / "again")]
    assert command.main([*arguments, "--document", str(written)]) == 0
    text = written.read_text()
    for part in report.parts(tiny_run).values():
        assert part in text


@needs_matplotlib
def test_every_picture_is_drawn_and_small(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    paths = list(draw(tiny_run["sections"], tmp_path))
    assert [path.stem for path in paths] == [
        name for name, (section, *_) in PICTURES.items() if section in SECTIONS
    ]
    for path in paths:
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert any(text and text.strip() for text in texts), path
        assert path.stat().st_size < 200_000


@needs_matplotlib
def test_the_same_samples_give_the_same_bytes(tiny_run: dict[str, Any], tmp_path: Path) -> None:
    first, second = (
        [path.read_bytes() for path in draw(tiny_run["sections"], tmp_path / name)]
        for name in ("one", "two")
    )
    assert first == second


@needs_matplotlib
def test_a_section_that_was_not_run_has_no_pictures(
    tiny_run: dict[str, Any], tmp_path: Path
) -> None:
    sections = {"cold": tiny_run["sections"]["cold"]}
    assert [path.stem for path in draw(sections, tmp_path)] == ["critical-path"]
