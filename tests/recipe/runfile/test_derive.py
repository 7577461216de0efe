# SPDX-License-Identifier: Apache-2.0
"""The door: what follows from a run file is asked for in one place, part by part."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from recipe.runfile.config import load
from recipe.runfile.derive import Inputs, derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.inputs import MADE_AT_LAUNCH
from recipe.runfile.paths import REPO, RunPaths
from recipe.runfile.schema import RunConfig
from recipe.tiny.config import tiny_fields

SIM, LEGAL, NPU = (load(REPO / "configs" / f"{name}.toml") for name in ("sim", "sim_legal", "a3_256die"))
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


def test_the_router_of_the_legal_model_has_its_groups_before_the_model_is_made() -> None:
    transformer = derive_run(LEGAL).transformer
    assert (transformer["moe_router_num_groups"], transformer["moe_router_group_topk"]) == (8, 4)
    assert "moe_router_num_groups" not in derive_run(SIM).transformer


@pytest.mark.parametrize(
    ("run", "asked", "expected"),
    [(SIM, None, "0"), (SIM, True, "1"), (LEGAL, None, "1"), (LEGAL, False, "0"), (NPU, True, None)],
)
def test_the_simulated_device_is_strict_where_the_sizes_allow_it(
    run: RunConfig, asked: bool | None, expected: str | None
) -> None:
    config = dataclasses.replace(run, simulator=dataclasses.replace(run.simulator, strict=asked))
    assert derive_run(config).environment.get("NPU_SIM_STRICT") == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (tiny_fields("legal"), "1"),
        (tiny_fields("legal") | {"num_attention_heads": 128, "num_hidden_layers": 61, "hidden_size": 7168}, "1"),
        (tiny_fields("legal") | {"kv_lora_rank": 256}, "0"),
        (tiny_fields("legal") | {"n_routed_experts": 64}, "0"),
        (tiny_fields(), "0"),
        ({"model_type": "qwen2"}, "0"),
    ],
)
def test_a_model_of_the_users_is_run_strictly_by_its_sizes(
    tmp_path: Path, fields: dict[str, object], expected: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    config = dataclasses.replace(SIM, model=dataclasses.replace(SIM.model, kind="path", path=str(tmp_path)))
    assert derive_run(config).environment["NPU_SIM_STRICT"] == expected


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
