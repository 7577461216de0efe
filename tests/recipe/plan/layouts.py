# SPDX-License-Identifier: Apache-2.0
"""Ways to lay the tiny model out, for the tests that count what its workers take on simulated dies."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recipe.models.families import describe
from recipe.plan.subject import Subject, subject
from recipe.runfile.config import load
from recipe.runfile.paths import REPO
from recipe.runfile.schema import HOST, OFFLOADED, SWAPPED, Recompute
from recipe.tiny.config import tiny_fields
from recipe.tiny.members import DEEPSEEK_V3, LLAMA, MOONLIGHT, QWEN2, QWEN3, QWEN3_MOE

PROMPT, RESPONSE = 40, 24


@dataclass(frozen=True)
class Layout:
    """One way to lay the tiny model out.

    `load_of_first`: the experts of the first expert-parallel rank are sent so many times an even share; None: as the
    router chooses. `expert_width`: of the model, which is the tiny one of that name (`member`).
    """

    dies: int
    stages: tuple[int, ...] = (4,)
    tensor: int = 1
    expert: int = 2
    rollout_tensor: int = 1
    instances: int = 1
    direct_sync: bool = False
    direct_sync_buffer_mib: int = 512
    recompute: Recompute | None = None
    micro_batch_tokens: int = 4 * (PROMPT + RESPONSE)
    mindspeed: bool = False
    load_of_first: float | None = 1.0
    expert_width: int = 64
    optimizer: str = OFFLOADED
    seed: int = 1
    member: str = DEEPSEEK_V3

    def planned(self) -> Subject:
        config = load(REPO / "configs/sim.toml")
        parts: dict[str, dict[str, Any]] = {
            "run": {"save_every": 1},
            "cluster": {"dies_per_node": self.dies},
            "model": {"member": self.member},
            "data": {"max_prompt_tokens": PROMPT, "max_response_tokens": RESPONSE},
            "rollout": {
                "tensor_parallel": self.rollout_tensor, "instances": self.instances, "samples_per_prompt": 4,
                "max_batched_tokens": 512, "direct_sync": self.direct_sync,
                "direct_sync_buffer_mib": self.direct_sync_buffer_mib,
            },
            "actor": {
                "tensor_parallel": self.tensor, "expert_parallel": self.expert, "stage_layers": list(self.stages),
                "micro_batch_tokens": self.micro_batch_tokens, "recompute": self.recompute,
                "optimizer": self.optimizer,
            },
            "train": {"prompts_per_step": 4, "loss_mode": "vanilla"},
        }  # fmt: skip
        changed = {name: dataclasses.replace(getattr(config, name), **values) for name, values in parts.items()}
        model = describe(tiny_fields(member=self.member) | expert_fields(self.member, self.expert_width))
        run = subject(dataclasses.replace(config, **changed), model, prompt_tokens=PROMPT)
        return dataclasses.replace(run, fused=self.mindspeed, stacked=self.mindspeed)


@dataclass(frozen=True)
class Made:
    """The tiny model with random weights, as Hugging Face directory and as Megatron checkpoint."""

    hf: Path
    checkpoint: Path


def expert_fields(member: str, width: int) -> dict[str, int]:
    """The changes that give a tiny model experts of this width, if it has any."""
    return {"moe_intermediate_size": width} if "moe_intermediate_size" in tiny_fields(member=member) else {}


def make_model(directory: Path, expert_width: int, member: str) -> Made:
    from recipe.tiny.build import random_model
    from recipe.tiny.tokenizer import save_tokenizer
    from recipe.weights.convert import convert

    made = Made(directory / "hf", directory / "mcore")
    random_model(1, member=member, **expert_fields(member, expert_width)).save_pretrained(made.hf)
    save_tokenizer(made.hf)
    convert(made.hf, made.checkpoint)
    return made


LAYOUTS: dict[str, dict[str, Any]] = {
    "ep2": {"dies": 2},
    "ep2, recomputed": {"dies": 2, "recompute": Recompute(granularity="full", method="uniform", layers=1)},
    "ep2, half recomputed": {"dies": 2, "recompute": Recompute(granularity="full", method="block", layers=2)},
    "dp4 ep2": {"dies": 4},
    "pp2 ep2, uneven; rollout tp2": {"dies": 4, "stages": (1, 3), "rollout_tensor": 2},
    "ep2, MindSpeed": {"dies": 2, "mindspeed": True},
    "ep2, MindSpeed, recomputed": {
        "dies": 2,
        "mindspeed": True,
        "recompute": Recompute(granularity="full", method="block", layers=4),
    },
    "ep2, MindSpeed, swapped": {"dies": 2, "mindspeed": True, "optimizer": SWAPPED},
    "tp2 ep2; rollout tp2": {"dies": 2, "tensor": 2, "rollout_tensor": 2},
    "ep2, optimizer on the host": {"dies": 2, "optimizer": HOST},
    # Three of a token's four experts on the first die.
    "ep2, tokens 3 : 1": {"dies": 2, "load_of_first": 1.5},
    # About as wide beside the hidden size as in the real model: what is fullest in a pass is something else.
    "ep2, narrow experts, tokens 3 : 1": {"dies": 2, "expert_width": 32, "load_of_first": 1.5},
    "ep2, as the router chooses": {"dies": 2, "load_of_first": None},
    "Moonlight, ep2": {"dies": 2, "member": MOONLIGHT},
    "Qwen3-MoE, ep2": {"dies": 2, "member": QWEN3_MOE},
    "Qwen3-MoE, tp2 ep2; rollout tp2": {"dies": 2, "member": QWEN3_MOE, "tensor": 2, "rollout_tensor": 2},
    "Llama; rollout tp2": {"dies": 2, "member": LLAMA, "expert": 1, "rollout_tensor": 2},
    "Qwen2, pp2": {"dies": 2, "member": QWEN2, "expert": 1, "stages": (2, 2), "instances": 2},
    "Qwen3": {"dies": 2, "member": QWEN3, "expert": 1, "instances": 2, "load_of_first": None},
    "Llama, pp2, MindSpeed": {
        "dies": 2,
        "member": LLAMA,
        "expert": 1,
        "stages": (2, 2),
        "instances": 2,
        "mindspeed": True,
    },
}
FAST = ("ep2", "ep2, narrow experts, tokens 3 : 1", "tp2 ep2; rollout tp2", "Qwen3-MoE, ep2")


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Of the tests of a layout."""
    slow = [] if name in FAST else [pytest.mark.slow]
    return [*slow, pytest.mark.mindspeed] if "MindSpeed" in name else slow
