# SPDX-License-Identifier: Apache-2.0
"""Our tools as their command lines see a command: what it parses to, which options there are, what it says when run."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import REPO

# Numbers that pages leave to the reader.
_PLACEHOLDERS = {"N", "S", "FIRST", "SECONDS", "COUNT"}
# The scripts that hand their options on, and to what; one of a published run names its run file itself.
_PUBLISHED = (
    *("ray_start_grpo_npu", "run_grpo_deepseekv3_671b_npu_megatron", "run_deepseekv3_671b_grpo_megatron_npu"),
    *("train_deepseekv3_256die_true_weight", "train_deepseekv3_256die_random_init"),
)
_HANDED_ON = {"launch.sh": ["node"]} | {f"{name}.sh": ["node", "RUN.toml"] for name in _PUBLISHED}


@dataclass(frozen=True)
class Command:
    """A command of ours: a module or a script, and what it is given."""

    module: str | None
    script: Path | None
    arguments: list[str]
    abridged: bool = False  # the page shows only the options that it speaks of

    @property
    def name(self) -> str:
        return self.module or str(self.script)


def command(line: str) -> Command | None:
    """The command of ours that `line` is, with what pages leave open filled in; None when it is none of ours."""
    words = shlex.split(re.split(r" (?:>|\||&&) ", line)[0].replace("[", " ").replace("]", " "))
    abridged = "..." in words
    words = ["3" if word in _PLACEHOLDERS else word for word in words if word != "..."]
    if words and Path(words[0]).name in ("python", "python3", "bash"):
        words = words[1:]
    if words[:1] == ["-m"] and words[1].partition(".")[0] == "recipe":
        return Command(words[1], None, words[2:], abridged)
    places = [REPO / words[0], REPO / "scripts" / words[0]] if words else []
    script = next((place for place in places if place.is_file() and place.suffix in (".py", ".sh")), None)
    if script is None:
        return None
    if script.name in _HANDED_ON:
        return Command("recipe", None, [*_HANDED_ON[script.name], *words[1:]], abridged)
    return Command(None, script.relative_to(REPO), words[1:], abridged)


class _Parsed(BaseException):
    def __init__(self, parser: argparse.ArgumentParser, taken: bool) -> None:
        self.parser, self.taken = parser, taken


@dataclass(frozen=True)
class Told:
    """What a command ended with."""

    code: int
    out: str
    err: str
    parser: argparse.ArgumentParser | None = field(default=None, compare=False)


def _main(wanted: Command) -> None:
    if wanted.module:
        warnings.simplefilter("ignore", RuntimeWarning)  # that the module has been imported before
        runpy.run_module(wanted.module, run_name="__main__", alter_sys=False)
    else:
        runpy.run_path(str(REPO / str(wanted.script)), run_name="__main__")


def run(wanted: Command, only_parse: bool = False) -> Told:
    """Run a Python command in this process, to its end or (`only_parse`) until its options have been read."""
    real = argparse.ArgumentParser.parse_args
    out, err, parser = io.StringIO(), io.StringIO(), None

    def parse(self: argparse.ArgumentParser, *given: object, **more: object) -> argparse.Namespace:
        try:
            options = real(self, *given, **more)
        except SystemExit as end:
            raise _Parsed(self, end.code == 0) if only_parse else end from None
        if only_parse:
            raise _Parsed(self, True)
        return options

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        patch.setattr(sys, "argv", [wanted.name, *wanted.arguments])
        patch.setattr(sys, "path", [*sys.path])
        try:
            _main(wanted)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except _Parsed as parsed:
            code, parser = (0 if parsed.taken else 2), parsed.parser
    return Told(code, out.getvalue(), err.getvalue(), parser)


def fault(line: str) -> str | None:
    """What is wrong with a command of ours: an option or a choice its tool does not know; None when it is taken."""
    wanted = command(line)
    assert wanted is not None, f"{line}: none of ours"
    of_a_shell = wanted.script is not None and wanted.script.suffix == ".sh"
    if of_a_shell or wanted.abridged:
        unknown = [word for word in wanted.arguments if word.startswith("--") and word not in options(wanted)]
        return f"{wanted.name} has no {unknown[0]}" if unknown else None
    if not wanted.arguments:
        return None  # the tool's name, with nothing to be wrong in it
    told = run(wanted, only_parse=True)
    if told.code == 0:
        return None
    said = told.err.strip().splitlines()[-1]
    named_only = (
        all(word.isidentifier() for word in wanted.arguments) and "the following arguments are required" in said
    )
    return None if named_only else said


def options(wanted: Command) -> set[str]:
    """The options that a command of ours has."""
    depth = 0
    while depth < len(wanted.arguments) and re.fullmatch(r"[a-z][a-z-]+", wanted.arguments[depth]):
        depth += 1
    return _options(wanted.module, wanted.script, tuple(wanted.arguments[:depth]))


@cache
def _options(module: str | None, script: Path | None, subcommands: tuple[str, ...]) -> set[str]:
    if script is not None and script.suffix == ".sh":
        lines = (REPO / script).read_text(encoding="utf-8").splitlines()
        cases = [line for line in lines if re.match(r"\s+(?:-\w \| )?--[\w |-]+\)", line) or "== --" in line]
        return set(re.findall(r"--[a-z][\w-]*", " ".join(cases)))
    told = run(Command(module, script, ["--no-such-option"]), only_parse=True)
    if told.parser is None:
        return set()
    return set(_below(told.parser, subcommands))


def _below(parser: argparse.ArgumentParser, subcommands: tuple[str, ...]) -> Iterator[str]:
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = [subcommands[0]] if subcommands[:1] and subcommands[0] in action.choices else action.choices
            for name in chosen:
                yield from _below(action.choices[name], subcommands[1:])
