# SPDX-License-Identifier: Apache-2.0
"""The door: what follows from a run file is asked for in one place, part by part."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from recipe.runfile.config import load
from recipe.runfile.derive import Inputs, derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.inputs import MADE_AT_LAUNCH
from recipe.runfile.paths import REPO, RunPaths

SIM, NPU = (load(REPO / "configs" / f"{name}.toml") for name in ("sim", "a3_256die"))
# Their constants and classes are words that others use; their functions are behind the door.
PARTS = ("layout", "environment", "overrides", "inputs", "model_files", "mindspeed")


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (REPO / "recipe").glob("*/__init__.py")))
def test_nobody_else_calls_the_parts(room: str) -> None:
    if room == "runfile":
        return
    for path in (REPO / "recipe" / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            names = {alias.name for alias in node.names}
            if node.module in [f"recipe.runfile.{part}" for part in PARTS]:
                assert not {name for name in names if name.islower()}, path
            if node.module == "recipe.runfile":
                assert not names & {*PARTS}, path


def test_what_is_made_at_launch_has_stand_ins() -> None:
    derived = derive_run(SIM)
    assert derived.inputs.model.is_relative_to(MADE_AT_LAUNCH)
    assert derived.inputs.prompt_tokens == SIM.data.max_prompt_tokens
    assert derived.paths.run_id == "sim-shown" and derived.environment["RECIPE_RUN_ID"] == "sim-shown"


def test_a_launch_says_what_it_has_made_and_where_it_keeps_it(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path / "model", tmp_path / "weights", tmp_path / "train", tmp_path / "validation", 16)
    paths = RunPaths.of(SIM).launched("sim-1", tmp_path)
    derived = derive_run(SIM, inputs, paths)
    assert "data.max_prompt_length=16" in derived.overrides and derived.environment["RECIPE_RUN_ID"] == "sim-1"
    assert derived.layout.micro_batch > derive_run(SIM).layout.micro_batch, "shorter sequences, more at a time"


def test_each_node_has_its_own_interface() -> None:
    named = dataclasses.replace(NPU, cluster=dataclasses.replace(NPU.cluster, interface="bond0"))
    assert derive_run(named).environment["HCCL_SOCKET_IFNAME"] == "bond0"
    assert derive_run(named, interface="eth7").environment["HCCL_SOCKET_IFNAME"] == "eth7"


def test_a_part_that_cannot_be_derived_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    broken = dataclasses.replace(NPU, model=dataclasses.replace(NPU.model, path=str(tmp_path)))
    derived = derive_run(broken)
    assert derived.layout == derive_run(NPU).layout and derived.environment
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        derived.complete()


def test_every_problem_is_told_and_the_first_one_stops() -> None:
    wrong = dataclasses.replace(
        SIM,
        rollout=dataclasses.replace(SIM.rollout, tensor_parallel=3),
        train=dataclasses.replace(SIM.train, warmup_steps=SIM.run.steps),
    )
    derived = derive_run(wrong)
    assert [problem.rule for problem in derived.problems] == ["engines", "warm-up"]
    with pytest.raises(ConfigError) as caught:
        _ = derived.layout
    assert str(caught.value) == derived.problems[0].text
