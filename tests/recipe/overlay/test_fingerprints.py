# SPDX-License-Identifier: Apache-2.0
"""The record of fingerprints: a hit says what parsing would say, and anything doubtful is a miss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.overlay import fingerprints, source

TEXT = "import functools\n\n@functools.cache\ndef f(x):\n    return x\n\nclass A:\n    def m(self): pass\n"


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cache" / "fingerprints.json"
    monkeypatch.setattr(fingerprints, "_FILE", file)
    start_process(monkeypatch)
    return file


def start_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had just begun."""
    fingerprints._stored.cache_clear()
    source._parsed.clear()
    monkeypatch.setattr(fingerprints, "_used", {})


def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are parsed from now on."""
    seen: list[str] = []
    parse = source.parse

    def noted(content: bytes, file: Path) -> object:
        seen.append(file.name)
        return parse(content, file)

    monkeypatch.setattr(source, "parse", noted)
    return seen


def test_what_is_recorded_is_not_parsed_again(record, tmp_path, monkeypatch):
    file = tmp_path / "up.py"
    file.write_text(TEXT)
    first = [source.find(file, name) for name in ("f", "A.m", None)]
    fingerprints.save()
    start_process(monkeypatch)
    seen = parses(monkeypatch)
    assert [source.find(file, name) for name in ("f", "A.m", None)] == first and seen == []
    assert [excerpt.plain for excerpt in first] == [False, True, False]


def test_a_changed_file_is_parsed(record, tmp_path, monkeypatch):
    file = tmp_path / "up.py"
    file.write_text(TEXT)
    before = source.find(file, "f").fingerprint
    fingerprints.save()
    start_process(monkeypatch)
    file.write_text(TEXT.replace("return x", "return -x"))
    seen = parses(monkeypatch)
    assert source.find(file, "f").fingerprint != before and seen == ["up.py"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rule": "another", "targets": 1}', '{"rule": 1}', "null"])
def test_a_record_that_is_broken_or_of_another_rule_is_a_miss(record, tmp_path, monkeypatch, content):
    file = tmp_path / "up.py"
    file.write_text(TEXT)
    expected = source.find_in(TEXT.encode(), file, "f")
    record.parent.mkdir()
    record.write_text(content)
    start_process(monkeypatch)
    seen = parses(monkeypatch)
    assert source.find(file, "f") == expected and seen == ["up.py"]
    fingerprints.save()
    assert len(json.loads(record.read_text())["targets"]) == 1


def test_only_what_was_asked_for_stays(record, tmp_path, monkeypatch):
    for text in (TEXT, TEXT + "X = 1\n"):
        start_process(monkeypatch)
        (tmp_path / "up.py").write_text(text)
        source.find(tmp_path / "up.py", "f")
        fingerprints.save()
        assert len(json.loads(record.read_text())["targets"]) == 1
    assert [file.name for file in record.parent.iterdir()] == ["fingerprints.json"]


def test_a_disk_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(fingerprints, "_FILE", tmp_path / "file" / "fingerprints.json")
    start_process(monkeypatch)
    (tmp_path / "up.py").write_text(TEXT)
    source.find(tmp_path / "up.py", "f")
    fingerprints.save()
    assert (tmp_path / "file").read_text() == ""
