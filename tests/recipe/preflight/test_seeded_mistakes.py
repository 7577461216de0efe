# SPDX-License-Identifier: Apache-2.0
"""Mistakes as people make them, one edit in one of the shipped run files: each is caught by the check that is meant."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import pytest

from recipe.checks.catalogue import checks_that_need
from recipe.checks.crash import REQUEST
from recipe.checks.declaration import NODE
from recipe.checks.facts.machine import this_machine
from recipe.checks.report import Report
from recipe.preflight import run_file

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
FILES = sorted(CONFIGS.glob("*.toml"))
PUBLISHED, WEIGHTS, RANDOM = "a3_256die", "a3_256die_true_weight", "a3_256die_random_init"
LARGE, GPUS, SIM, SIM4 = "a3_384die_base_acc", "h20_128gpu_math_lighteval", "sim", "sim_4die"
STRICT = "sim_legal"
BALANCE = "sim_balance"

# file, section, the line that is written there (in the place of the one with that key), the check that catches it
MISTAKES = [
    (PUBLISHED, "run", 'stepz = 70', "C001"),
    (PUBLISHED, "run", 'steps = "70"', "C001"),
    (PUBLISHED, "cluster", "device = 'npus'", "C001"),
    (PUBLISHED, "cluster", "head = '192.0.2.1:6379'", "C001"),
    (PUBLISHED, "rollout", "memory_share = 80", "C001"),
    (WEIGHTS, "reward", "verifier = 'r1-zero'", "C001"),
    (WEIGHTS, "model", "checkpoint = 7", "C001"),
    # The layer lists of the published runs, typed by hand.
    (PUBLISHED, "actor", "stage_layers = [6, 8, 8, 8, 8, 8, 8, 8]", "L010"),
    (LARGE, "actor", "stage_layers = [10, 10, 10, 10, 10, 10]", "L010"),
    (SIM4, "actor", "stage_layers = [1, 2]", "L010"),
    (PUBLISHED, "actor", "stage_layers = [10, 10, 10, 10, 10, 11]", "L003"),
    (PUBLISHED, "actor", "expert_parallel = 64", "L004"),
    (SIM, "actor", "expert_parallel = 1", "L018"),
    (PUBLISHED, "reward", "tier3 = 'math_verify'", "D013"),
    (SIM, "actor", "expert_parallel = 4", "L004"),
    (PUBLISHED, "cluster", "nodes = 15", "L004"),
    (PUBLISHED, "rollout", "tensor_parallel = 3", "L005"),
    (SIM4, "rollout", "tensor_parallel = 3", "L005"),
    (WEIGHTS, "rollout", "instances = 3", "L006"),
    (PUBLISHED, "train", "prompts_per_step = 100", "L007"),
    (SIM, "rollout", "samples_per_prompt = 1", "T003"),
    (LARGE, "rollout", "instances = 1", "L012"),
    # The layout of the published run with weights, which MindSpeed at our pin refuses.
    (WEIGHTS, "actor", "tensor_parallel = 4", "L013"),
    (WEIGHTS, "actor", "offload_optimizer = true", "C001"),
    (WEIGHTS, "actor", 'optimizer = "host"\noptimizer_host_share = 0.5', "T004"),
    (GPUS, "actor", 'optimizer = "swapped"', "T005"),
    (GPUS, "actor", 'optimizer = "host"', "T013"),
    (SIM, "train", "warmup_steps = 50", "T016"),
    (GPUS, "train", "loss_mode = 'npu_on_policy'", "T001"),
    (GPUS, "train", "updates_per_step = 48", "T002"),
    (RANDOM, "actor", "micro_batch_tokens = 3072", "T006"),
    (PUBLISHED, "train", "learning_rate = 1e-3", "T007"),
    (GPUS, "actor", "recompute = { granularity = 'full', method = 'uniform', layers = 4 }", "T009"),
    (WEIGHTS, "run", "step_deadline_s = 300", "T011"),
    (WEIGHTS, "run", "save_every = 1000", "T010"),
    (WEIGHTS, "data", "max_response_tokens = 200000", "V001"),
    (PUBLISHED, "rollout", "max_batched_tokens = 48", "V002"),
    (PUBLISHED, "rollout", "kv_nz = true", "V003"),
    (PUBLISHED, "rollout", "max_batched_tokens = 512", "V004"),
    (PUBLISHED, "rollout", "top_p = 0.9", "V007"),
    (WEIGHTS, "rollout", "ignore_eos = true", "V009"),
    (PUBLISHED, "rollout", "memory_share = 0.97", "V010"),
    (PUBLISHED, "rollout", "memory_share = 0.2", "M002"),
    (PUBLISHED, "actor", "recompute = { granularity = 'full', method = 'block', layers = 1 }", "M001"),
    (PUBLISHED, "cluster", "hbm_gib_per_die = 32", "M001"),
    (WEIGHTS, "cluster", "host_memory_gib_per_node = 512", "M004"),
    (GPUS, "cluster", "dies_per_node = 16", "C001"),
    (GPUS, "cluster", 'hardware = "a3_128"', "C001"),
    (PUBLISHED, "cluster", 'hardware = "a3"', "C001"),
    (PUBLISHED, "cluster", "dies_per_node = 8", "L016"),
    (PUBLISHED, "cluster", "collective_timeout_s = 120", "T015"),
    (GPUS, "cluster", "collective_timeout_s = 600", "T015"),
    (PUBLISHED, "train", "loss_mode = 'vanilla'", "T014"),
    (RANDOM, "train", "loss_mode = 'vanilla'", "T014"),
    (PUBLISHED, "cluster", "head = '127.0.0.1'", "C003"),
    (SIM4, "cluster", "nodes = 2", "C003"),
    (PUBLISHED, "cluster", "head = '[2001:db8::1]'", "C001"),
    (GPUS, "rollout", "instances = 2", "L019"),
    (PUBLISHED, "model", "path = 'DeepSeek-V3-Base-BF16'", "N017"),
    (PUBLISHED, "environment", "VLLM_DP_SIZE = '64'", "E015"),
    (SIM, "environment", "MASTER_PORT = '29500'", "E015"),
    (GPUS, "environment", "PYTORCH_CUDA_ALLOC_CONF = 'expandable_segments:True'", "E001"),
    (SIM, "data", "template = 'r1zero'", "D004"),
    (SIM, "data", "template = 'plain'", "D005"),
    (SIM4, "reward", "path = 'rewards/mine.py'", "D007"),
    (SIM4, "reward", "verifier = 'dapo'", "D005"),
    (STRICT, "rollout", "tensor_parallel = 2", "V013"),
    (SIM, "simulator", "strict = true", "V014"),
    (BALANCE, "rollout", "graph_sizes = [128]", "V005"),
    ("a2_8npu_moonlight_16b", "actor", "stage_layers = [7, 7, 7, 7]", "L010"),
    ("a2_8npu_qwen3_8b", "rollout", "tensor_parallel = 3", "L005"),
    ("a2_8npu_qwen2_5_7b", "cluster", "hbm_gib_per_die = 32", "M001"),
    ("a3_16die_qwen3_30b_a3b", "actor", "expert_parallel = 1", "L018"),
]  # fmt: skip


def edited(text: str, section: str, line: str) -> str:
    """The text with `line` in its section, for the one with the same key or else below the section's head."""
    key = line.partition(" =")[0]
    head, begin, rest = text.partition(f"\n[{section}]")
    if not begin:
        return f"{text}\n[{section}]\n{line}\n"
    body, mark, others = rest.partition("\n[")
    changed, count = re.subn(rf"(?m)^{key} = .*$", line.replace("\\", r"\\"), body, count=1)
    return head + begin + (changed if count else f"\n{line}{body}") + mark + others


MACHINE = dataclasses.replace(this_machine(), packages={})
OF_A_NODE = {check.id for check in checks_that_need(NODE)}


def reported(file: Path, node: bool = False) -> Report:
    return run_file(file, node=node, cluster=False, machine=MACHINE)


@functools.cache
def right(name: str, node: bool) -> frozenset[str]:
    return ids(reported(CONFIGS / f"{name}.toml", node))


def ids(report: Report) -> frozenset[str]:
    return frozenset(finding.id for finding in (*report.errors, *report.warnings))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_run_file_has_no_error(file: Path) -> None:
    report = reported(file)
    assert not report.errors, report.lines()
    assert len(report.passed) >= 30 and not any(REQUEST in finding.found for finding in report.findings)


@pytest.mark.parametrize(("name", "section", "line", "id"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_caught_by_the_right_check(tmp_path: Path, name: str, section: str, line: str, id: str) -> None:
    node = id in OF_A_NODE
    assert id not in right(name, node)
    wrong = tmp_path / f"{name}.toml"
    wrong.write_text(edited((CONFIGS / wrong.name).read_text(encoding="utf-8"), section, line), encoding="utf-8")
    report = reported(wrong, node)
    assert id in ids(report), report.lines()


def test_there_are_at_least_thirty_and_one_in_every_file() -> None:
    assert len(MISTAKES) >= 30
    assert {name for name, *_ in MISTAKES} == {file.stem for file in FILES}
