# SPDX-License-Identifier: Apache-2.0
"""Device memory that others published, beside what the plan makes of their layouts. Nothing of this was measured here.

A row is the run in our run file's terms. What differs from the published script is in docs/PLAN.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recipe.plan.memory import Memory, memory
from recipe.plan.subject import subject
from recipe.runfile.config import from_values
from recipe.runfile.schema import GIB

_RECOMPUTED = {"granularity": "full", "method": "uniform", "layers": 1}
_SECTIONS: Mapping[str, Mapping[str, Any]] = {
    "run": {
        "name": "published",
        "steps": 15,
        "output_dir": "/shared/runs",
        "validate_every": 0,
        "setup_deadline_s": 7200,
        "step_deadline_s": 3600,
    },
    "cluster": {"device": "npu", "nodes": 1, "head": "192.0.2.1"},
    "model": {"kind": "path", "path": "/shared/huggingface", "checkpoint": "/shared/torch_dist"},
    "data": {
        "kind": "parquet",
        "train_path": "/shared/train.parquet",
        "validation_path": "/shared/validation.parquet",
    },
    "rollout": {},
    "actor": {"optimizer": "offloaded", "recompute": _RECOMPUTED},
    "train": {"learning_rate": 1e-6, "loss_mode": "vanilla"},
}


@dataclass(frozen=True)
class PublishedMemory:
    """A published figure.

    Attributes:
        name: for a table.
        gib: published, on the fullest device or on the one that reports.
        all_of_it: the figure is all that is taken of a device; else what torch has allocated at most.
        settings: of the run, by section.
    """

    name: str
    gib: float
    all_of_it: bool
    settings: Mapping[str, Mapping[str, Any]]

    def planned(self) -> Memory:
        """What the plan makes of it."""
        values = {name: {**section, **self.settings.get(name, {})} for name, section in _SECTIONS.items()}
        return memory(subject(from_values(values, self.name)))

    def planned_gib(self) -> tuple[float, str]:
        """GiB of the fullest die in the phase with most, and that phase."""
        needed = self.planned()
        found = {
            phase: die.total(phase) + (die.outside_total if self.all_of_it else 0)
            for phase in needed.phases
            for die in [needed.worst(phase)]
        }
        phase = max(found, key=lambda name: found[name])
        return found[phase] / GIB, phase


# verl-project/verl-ascend-recipe baseline/a2 and baseline/a3 (2a3edec), `actor/perf/max_memory_allocated_gb` after 15
# steps, and the scripts of verl-project/verl tests/special_npu/nightly_ci_ascend (0730d6a and 12ff35a).
ROWS = (
    # DAPO, context parallel 2 of twice as many tokens: as many tokens on a die, and its experts on the same two dies.
    PublishedMemory(
        "nightly, Moonlight-16B on 8 A2",
        38.8807,
        False,
        {
            "cluster": {"hardware": "a2_64"},
            "model": {"architecture": "moonlight_16b_a3b"},
            "data": {"max_prompt_tokens": 1024, "max_response_tokens": 2048},
            "rollout": {
                "tensor_parallel": 4,
                "instances": 2,
                "samples_per_prompt": 16,
                "max_batched_tokens": 3072,
                "memory_share": 0.65,
            },
            "actor": {
                "tensor_parallel": 1,
                "expert_parallel": 2,
                "stage_layers": [7, 7, 7, 6],
                "micro_batch_tokens": 3072,
                "log_prob_micro_batch_tokens": 9216,
            },
            "train": {"prompts_per_step": 32},
        },
    ),
    # gsm8k: 362 tokens an answer with its prompt (throughput and time), all eight of a rank's in one micro-batch.
    PublishedMemory(
        "nightly, Qwen3-30B on 16 dies of A3",
        49.135295,
        False,
        {
            "cluster": {"hardware": "a3_128"},
            "model": {"architecture": "qwen3_30b_a3b"},
            "data": {"max_prompt_tokens": 150, "max_response_tokens": 212},
            "rollout": {
                "tensor_parallel": 8,
                "instances": 2,
                "samples_per_prompt": 4,
                "max_batched_tokens": 8192,
                "memory_share": 0.7,
            },
            "actor": {
                "tensor_parallel": 2,
                "expert_parallel": 8,
                "stage_layers": [48],
                "micro_batch_tokens": 8 * 362,
            },
            "train": {"prompts_per_step": 32, "updates_per_step": 2},
        },
    ),
    # Expert parallel 4 of experts that are split over 4: a sixteenth of them on a die, here whole ones.
    PublishedMemory(
        "nightly, Qwen3-30B with SGLang on 16 dies of A3",
        36.9292,
        False,
        {
            "cluster": {"hardware": "a3_128"},
            "model": {"architecture": "qwen3_30b_a3b"},
            "data": {"max_prompt_tokens": 2048, "max_response_tokens": 8192},
            "rollout": {
                "tensor_parallel": 4,
                "instances": 4,
                "samples_per_prompt": 8,
                "max_batched_tokens": 10240,
                "memory_share": 0.5,
            },
            "actor": {
                "tensor_parallel": 4,
                "expert_parallel": 16,
                "stage_layers": [48],
                "micro_batch_tokens": 10240,
            },
            "train": {"prompts_per_step": 16},
        },
    ),
    # verl 0.6.1 docs/perf/dpsk.md (d62da49), "Benchmark", and the script that it names,
    # examples/grpo_trainer/run_deepseek671b_math_megatron_96gb.sh.
    PublishedMemory(
        "verl, DeepSeek-V3 on 96 H20",
        66.0,
        True,
        {
            "cluster": {"device": "cuda", "hardware": "h20_96", "nodes": 12},
            "model": {"architecture": "deepseek_v3_671b"},
            "data": {"max_prompt_tokens": 2048, "max_response_tokens": 1204 * 8},
            "rollout": {
                "tensor_parallel": 32,
                "instances": 3,
                "samples_per_prompt": 8,
                "max_batched_tokens": 2048 + 1204 * 8,
                "memory_share": 0.6,
            },
            "actor": {
                "tensor_parallel": 8,
                "expert_parallel": 8,
                "stage_layers": [*(11 * [5]), 6],
                "micro_batch_tokens": 2048 + 1204 * 8,
                "optimizer": "host",
            },
            "train": {"prompts_per_step": 96, "updates_per_step": 3},
        },
    ),
)


def published_memory_table() -> Iterator[str]:
    """Lines of a Markdown table: published and planned GiB."""
    yield "| published run | published GiB | planned GiB | off | fullest in |"
    yield "|---|---:|---:|---:|---|"
    for row in ROWS:
        planned, phase = row.planned_gib()
        yield f"| {row.name} | {row.gib:.1f} | {planned:.1f} | {planned / row.gib - 1:+.1%} | {phase} |"
