# SPDX-License-Identifier: Apache-2.0
"""The commands are those that the rooms' `cli.py` name; a new room needs no line anywhere else."""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.commands import command_modules
from recipe.own_packages import REPOSITORY

HELLO = """\
import argparse

COMMANDS = ("hello",)


def register(subparsers):
    subparsers.add_parser("hello", help="greet").set_defaults(handler=lambda _: print("here"))
"""


def room(package: Path, name: str, text: str) -> None:
    (package / name).mkdir(parents=True)
    (package / name / "cli.py").write_text(text)


def run(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "recipe", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_new_room_has_its_command(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "recipe", tmp_path / "recipe", ignore=shutil.ignore_patterns("__pycache__"))
    room(tmp_path / "recipe", "greeting", HELLO)
    assert run(tmp_path, "hello") == "here\n"
    assert "hello" in run(tmp_path, "--help") and "greet" in run(tmp_path, "--help")


def test_each_module_registers_what_it_names() -> None:
    modules = command_modules()
    assert set(modules) > {"launch", "node", "show", "sync", "patches"}
    for module in sorted(set(modules.values())):
        subparsers = argparse.ArgumentParser().add_subparsers()
        importlib.import_module(module).register(subparsers)
        assert set(subparsers.choices) == {name for name in modules if modules[name] == module}, module


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x = 1\n"], "a0/cli.py names no command"),
        (['COMMANDS = ("one",)\n', 'COMMANDS = ("two", "one")\n'], "the command one is that of recipe.a0.cli already"),
    ],
)
def test_a_room_without_a_command_or_with_another_s(tmp_path: Path, texts: list[str], message: str) -> None:
    for number, text in enumerate(texts):
        room(tmp_path / "recipe", f"a{number}", text)
    with pytest.raises(ValueError, match=message):
        command_modules(tmp_path / "recipe")
