# SPDX-License-Identifier: Apache-2.0
"""Two steps of GRPO with a tiny model of each kind: real verl, vLLM and Megatron-core on the simulated NPU.

Those whose heads have the published size run on devices that refuse what an NPU refuses.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.plan.memory import memory
from recipe.plan.subject import subject
from recipe.report.metrics import read_steps
from recipe.runfile.config import load
from recipe.tiny.members import DEEPSEEK_V3, MEMBERS, MOONLIGHT, QWEN3, QWEN3_MOE
from tests.end_to_end.test_run import launched, run_file

pytestmark = pytest.mark.slow
EXPERTS, WIDE_HEADS = (MOONLIGHT, QWEN3_MOE), (QWEN3, QWEN3_MOE)


@pytest.mark.parametrize("member", [name for name in MEMBERS if name != DEEPSEEK_V3])
def test_two_steps_with_the_usual_guards(member: str, tmp_path: Path) -> None:
    file = run_file(tmp_path, "sim.toml")
    text = file.read_text(encoding="utf-8").replace('kind = "tiny"\n', f'kind = "tiny"\nmember = "{member}"\n')
    if member not in EXPERTS:
        text = text.replace("expert_parallel = 2", "expert_parallel = 1")
    if member in WIDE_HEADS:
        text = text.replace("hbm_mib = 256", "hbm_mib = 512")
    assert f'member = "{member}"' in text
    file.write_text(text, encoding="utf-8")
    assert memory(subject(load(file))).fits
    with launched(tmp_path, file, member, steps=2) as launcher:
        output, error = launcher.communicate(timeout=900)
    assert launcher.returncode == 0, error + output
    run_dir = tmp_path / member
    first, *steps = read_steps(run_dir / "metrics.jsonl")
    assert [step.number for step in (first, *steps)] == [0, 1, 2]
    for step in steps:
        assert 0 < step.values["actor/grad_norm"] < 10
        assert abs(step.values["training/rollout_actor_kl"]) < 2e-3
        assert step.values["training/rollout_actor_probs_pearson_corr"] > 0.999
    environment = json.loads((run_dir / "command.json").read_text(encoding="utf-8"))["environment"]
    assert environment["NPU_SIM_STRICT"] == str(int(member in WIDE_HEADS))
    assert environment["RECIPE_DIRECT_SYNC"] == str(int(member == MOONLIGHT))
