# SPDX-License-Identifier: Apache-2.0
"""Every command of four published recipes, given to our program of the same job; `commands.toml` has them.

Where our program has their name, their options are taken as they stand, on small inputs that are real.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.__main__ import main
from recipe.tiny import published
from recipe.tiny.config import Fp8Model
from recipe.tiny.fp8 import make_fp8_model
from recipe.weights import cast_cli, convert
from tests.docs import pages, tools

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[2]
PAGES = ("docs/FROM_OTHER_RECIPES.md", "docs/zh/FROM_OTHER_RECIPES.md")
TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("commands.toml").read_text("utf-8"))
COMMANDS: list[dict[str, Any]] = TABLE["command"]
STARTS = [command for command in COMMANDS if "starts" in command]
LOOKS = [command for command in COMMANDS if command.get("looks")]
RUNS = [command for command in COMMANDS if command not in STARTS and command not in LOOKS]
MODEL = Fp8Model(
    hidden_size=128, layers=3, experts=4, intermediate_size=128, moe_intermediate_size=128, heads=2, q_rank=64,
    kv_rank=64, shard_bytes=400_000,
)  # fmt: skip


def program(command: dict[str, Any]) -> str:
    """The name of their program."""
    words = shlex.split(command["theirs"])
    return Path(words[1] if words[0] in ("python", "bash") else words[0]).name


def words_behind(command: dict[str, Any]) -> list[str]:
    """What stands behind their program."""
    return shlex.split(command["theirs"])[2:]


def ids(command: dict[str, Any]) -> str:
    return f"{command['recipe']}: {program(command)}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the commands read, by the names that the table has in braces."""
    here = tmp_path_factory.mktemp("inputs")
    made = {name: here / name for name in ("fp8", "bf16", "mcore", "published", "lighteval")}
    made |= {"deepscaler": REPO / "data/deepscaler_sample.json", "dapo": here / "dapo-math-17k.parquet"}
    make_fp8_model(MODEL, made["fp8"], lambda _: None)
    assert cast_cli.main(["--input-fp8-hf-path", str(made["fp8"]), "--output-bf16-hf-path", str(made["bf16"])]) == 0
    convert.convert(made["bf16"], made["mcore"])
    assert published.main([str(made["published"])]) == 0
    (made["lighteval"] / "data").mkdir(parents=True)
    sums = [
        {"problem": f"What is {i} + 1?", "level": "Level 1", "solution": f"It is $\\boxed{{{i + 1}}}$."}
        for i in range(20)
    ]
    for split, rows in (("train", sums[:15]), ("test", sums[15:])):
        file = made["lighteval"] / "data" / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file)
    truth = [{"prompt": [{"role": "user", "content": f"{i} + 1?"}],
              "reward_model": {"ground_truth": str(i + 1), "style": "rule"}} for i in range(20)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(truth), made["dapo"])
    return made


def test_the_table_has_every_recipe_and_says_where_it_is_from() -> None:
    assert {command["recipe"] for command in COMMANDS} == set(TABLE["sources"])
    assert len(COMMANDS) == len(RUNS) + len(STARTS) + len(LOOKS) > 25
    assert all(re.fullmatch(r"[0-9a-f]{40}", source["commit"]) for source in TABLE["sources"].values())


def test_a_program_of_their_name_is_ours_where_their_options_are_taken() -> None:
    for command in RUNS:
        if command.get("same_flags"):
            assert Path(command["ours"].split()[0]).name == program(command), command


@pytest.mark.parametrize("command", RUNS, ids=ids)
def test_our_program_does_it_with_their_options(
    command: dict[str, Any], inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(inputs["deepscaler"], tmp_path / "deepscaler.json")
    shutil.copytree(inputs["lighteval"], tmp_path / "lighteval")
    places = {name: str(path) for name, path in inputs.items()} | {"lighteval": str(tmp_path / "lighteval")}

    def filled(text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda name: places[name[1]], text)

    line = filled(command["ours"])
    if command.get("same_flags"):
        values, words = command["values"], words_behind(command)
        theirs = {word for word in words if word.startswith("--")}
        given = [values.get(before, word) for before, word in zip(["", *words], words, strict=False)]
        assert theirs <= set(given) and set(values) <= theirs
        line = shlex.join([*shlex.split(line), *map(filled, given)])
    wanted = tools.command(line)
    assert wanted is not None
    told = tools.run(wanted)
    if "disk" in command:  # a plan is printed, and refused where there is no room for it
        assert told.code == 0 or command["disk"] in told.err, told.err
    else:
        assert told.code == 0, told.err
    for name in command.get("makes", []):
        assert (tmp_path / filled(name)).is_file(), name
    for text in command.get("says", []):
        assert text in told.out, told.out
    assert command.get("makes") or command.get("says")


@pytest.mark.parametrize("command", LOOKS, ids=ids)
def test_our_command_is_one(command: dict[str, Any]) -> None:
    assert tools.fault(command["ours"].format(upstream="upstream")) is None


@pytest.mark.parametrize("command", STARTS, ids=ids)
def test_our_entry_starts_the_run_with_the_settings_behind_it(
    command: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The launcher gets what stands behind the entry, and takes it; a stand-in for python prints what it got."""
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    settings = [] if "--config-name" in command["theirs"] else words_behind(command)
    script, *file = command["ours"].split()
    done = subprocess.run(
        ["bash", str(REPO / script), *(str(REPO / one) for one in file), *settings], cwd=tmp_path, text=True,
        env={**os.environ, "RECIPE_VENV": str(tmp_path / "venv")}, capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    module, package, node, run, *behind = done.stdout.splitlines()
    assert (module, package, node) == ("-m", "recipe", "node") and behind == settings
    assert Path(run).resolve() == REPO / command["starts"]
    if settings:
        assert main(["show", run, *behind]) == 0
        shown = capsys.readouterr().out
        assert all(setting.partition("=")[0] in shown for setting in settings)


def test_options_of_theirs_that_would_make_other_files_are_refused_in_a_line(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    for option in (
        ["--num-layers-per-virtual-pipeline-stage", "1"], ["--noop-layers", "0,1"], ["--qlora-nf4"],
        ["--num-nextn-predict-layers", "1"],
    ):  # fmt: skip
        arguments = ["--load-dir", str(inputs["bf16"]), "--save-dir", str(tmp_path / "out"), *option]
        told = tools.run(tools.Command(None, Path("scripts/convert_ckpt_deepseek3.py"), arguments))
        assert told.code == 2 and told.err.startswith(f"error: {option[0]}: ") and told.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("page", PAGES)
def test_the_page_has_every_command_and_ours(page: str) -> None:
    shown = pages.text(page)
    for command in COMMANDS:
        assert program(command) in shown, command
        ours = [word for word in command["ours"].split() if word.startswith(("scripts/", "configs/"))]
        assert all(word in shown for word in ours), command
    for source in TABLE["sources"].values():
        assert source["repository"] in shown and source["commit"][:7] in shown


def test_the_commands_of_a_json_schema_are_json() -> None:
    """What the table maps is what MindSpeed-RL's files map: four names, of which two are empty."""
    mappings = [
        json.loads(found[1]) for command in COMMANDS if (found := re.search(r"--map-keys '(.*)'", command["ours"]))
    ]
    assert len(mappings) == 2 and all(set(one) == {"prompt", "query", "response", "system"} for one in mappings)
