# SPDX-License-Identifier: Apache-2.0
"""Mistakes at true size that nothing sees before a die does, or late: a rehearsal ends with one line about each.

Each is made in a shipped run file, which ends without such a line (docs/REHEARSAL.md). Composing, plan and preflight
take every one of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recipe.__main__ import main
from recipe.plan.memory import memory
from recipe.plan.subject import subject
from recipe.runfile.config import load, tomllib
from recipe.runfile.paths import REPO
from recipe.runfile.toml_text import as_toml

MEASURED, WEIGHTS, BASE_ACC = "a3_256die_random_init", "a3_256die_true_weight", "a3_384die_base_acc"
# So little that a rollout comes to its end soon, where it plays a part only by being there.
SHORT = ("--stage", "0", "--prompt-tokens", "8", "--response-tokens", "16", "--decode-steps", "2")
LIMIT_S = 1200
WITHOUT_GRAPHS = {"graph_mode": False, "multistream_mla": False, "multistream_moe": False}


@dataclass(frozen=True)
class Mistake:
    """A run file with a mistake.

    Attributes:
        file: the shipped one.
        options: of `rehearse`.
        line: what it ends with, a regular expression.
        changed: keys by section.
        expert_load: option of `rehearse` and `plan`.
        warned: checks of preflight that warn of it, or of what it leads to.
        refused: by an upstream or the die, with exit code 1; else something does not fit, which is a result.
    """

    file: str
    options: tuple[str, ...]
    line: str
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    expert_load: float = 1
    warned: tuple[str, ...] = ()
    refused: bool = True

    def write(self, directory: Path) -> Path:
        values = tomllib.loads((REPO / f"configs/{self.file}.toml").read_text(encoding="utf-8"))
        for section, keys in self.changed.items():
            values.setdefault(section, {}).update(keys)
        file = directory / "run.toml"
        file.write_text(as_toml(values), encoding="utf-8")
        return file


MISTAKES = {
    "more answers for an engine than HCCL's buffers have room for, on 384 dies": Mistake(
        BASE_ACC, SHORT,
        r"error: stage 0: building: Refused: npu_moe_distribute_dispatch_v2: global_bs is 4096 \(64 tokens a die\), "
        r"which wants HCCL_BUFFSIZE 480 and it is 300, ",
        {"train": {"prompts_per_step": 768}},
    ),
    "more answers for a die of an A2 than one step dispatches, which are half of an A3's": Mistake(
        MEASURED, SHORT,
        r"error: stage 0: building: Refused: npu_moe_distribute_dispatch_v2: expert_ids is of shape \[512, 8\], ",
        {
            "cluster": {"hardware": "a2_64", "nodes": 32, "dies_per_node": 8},
            "rollout": {"instances": 4, "samples_per_prompt": 64},
            "train": {"prompts_per_step": 2048},
        },
        warned=("M003",),
    ),
    "more answers for a die than one step dispatches": Mistake(
        MEASURED, SHORT,
        r"error: stage 0: building: Refused: npu_moe_distribute_dispatch_v2: expert_ids is of shape \[1024, 8\], ",
        {
            "rollout": {"tensor_parallel": 1, "samples_per_prompt": 64},
            "train": {"prompts_per_step": 4096},
        },
        warned=("M003",),
    ),
    "a switch of vLLM's that vLLM-Ascend's model does not know": Mistake(
        MEASURED, SHORT,
        r"error: stage 0: building: TypeError: DeepseekV2Attention\.forward\(\) got an unexpected keyword argument ",
        {"environment": {"VLLM_MLA_DISABLE": "1"}},
    ),
    "more answers for an engine than its buffer for prompts in pieces has blocks": Mistake(
        MEASURED, SHORT,
        r"error: stage 0: building: AssertionError at .*mla_v1\.py:\d+: assert self.chunked_prefill_workspace_size ",
        {
            "rollout": {
                "tensor_parallel": 16, "samples_per_prompt": 64, "max_batched_tokens": 2048, **WITHOUT_GRAPHS
            }
        },
        warned=("M003", "V006"),
    ),
    "fewer heads on a die than attention outside graphs takes": Mistake(
        MEASURED, SHORT,
        r"error: stage 0: rollout: Refused: atb\.npu_multi_head_latent_attention: q_headnum is 4, ",
        {"rollout": {"tensor_parallel": 32, **WITHOUT_GRAPHS}},
        warned=("L015", "M003", "V006"),
    ),
    "batches in two halves, which vLLM-Ascend's model has for quantised experts alone": Mistake(
        MEASURED, SHORT,
        r"error: stage 0: rollout: AttributeError: 'AscendFusedMoE' object has no attribute 'w13_weight_scale'",
        {"environment": {"VLLM_ASCEND_ENABLE_DBO": "1"}},
    ),
    "a memory share of 0.95, and an expert with 20 times its share": Mistake(
        MEASURED,
        (*SHORT, "--prompt-tokens", "32"),
        r"OUT OF MEMORY: rollout, stage 0: .* wanted and .* free, beside KV cache 27\.6 GiB, ",
        {"rollout": {"memory_share": 0.95}},
        expert_load=20,
        refused=False,
    ),
    "experts with ten times their share, where passes without gradients take four sequences": Mistake(
        WEIGHTS,
        ("--stage", "0", "--rollout", "none", "--micro-batches", "1"),
        r"OUT OF MEMORY: reference, stage 0: .* wanted and .* free, beside activations ",
        expert_load=10,
        refused=False,
    ),
    "experts with three times their share, where an update has little room": Mistake(
        BASE_ACC,
        ("--stage", "1", "--rollout", "none"),
        r"OUT OF MEMORY: update, stage 1: .* wanted and .* free, beside activations ",
        expert_load=3,
        refused=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_neither_plan_nor_preflight_stops_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mistake = MISTAKES[name]
    file = mistake.write(tmp_path)
    planned = subject(load(file))
    assert memory(planned).fits
    if mistake.expert_load != 1:  # it does see what it is asked about
        assert not memory(dataclasses.replace(planned, expert_load=mistake.expert_load)).fits
    new = complaints(file, capsys) - complaints(REPO / f"configs/{mistake.file}.toml", capsys)
    assert new == {(check, "warning") for check in mistake.warned}


def complaints(file: Path, capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str]]:
    """Checks of preflight that have something to say about a run file, with the level of it."""
    assert main(["preflight", str(file), "--no-cluster", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    return {(one["id"], one["level"]) for one in findings if one["level"] != "not run"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the rehearsals of a run file find what was described of its stages."""
    return tmp_path_factory.mktemp("rehearsals")


@pytest.mark.slow
@pytest.mark.mindspeed
@pytest.mark.parametrize("name", MISTAKES)
def test_a_rehearsal_ends_with_one_line_about_it(
    name: str, places: Path, tmp_path: Path, mindspeed_upstream: Path
) -> None:
    mistake = MISTAKES[name]
    command = [
        sys.executable, "-m", "recipe", "rehearse", str(mistake.write(tmp_path)),
        "--out", str(places / mistake.file), "--expert-load", str(mistake.expert_load), *mistake.options,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=REPO, env={**os.environ, "RECIPE_UPSTREAM": str(mindspeed_upstream)}, capture_output=True,
        text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    said = (done.stdout if not mistake.refused else done.stderr).splitlines()
    assert done.returncode == (1 if mistake.refused else 0), done.stderr[-3000:]
    assert re.match(mistake.line, said[-1]), said[-1]
    assert "Traceback" not in done.stdout + done.stderr
