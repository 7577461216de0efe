# SPDX-License-Identifier: Apache-2.0
"""Published steps of DeepSeek-V3 671B on 128 Ascend A3 NPUs (256 dies): what was run and how long each phase took.

verl recipe/r1_ascend README.md (the table "performance metrics for one training step") and hicann/cann-recipes-train
docs/llm_rl/deepseek_rl_train_optimization.md, sections 1.4.1 and 1.4.2. No step time of MindSpeed-RL's 384 dies
(docs/solutions/r1_zero_deepseek_671b.md has curves only) nor of Pai-Megatron-Patch's 128 H20 was found.
"""

from __future__ import annotations

from dataclasses import dataclass

NPUS, DIES = 128, 256


@dataclass(frozen=True)
class PublishedStep:
    """Mean lengths in tokens and seconds by phase; `generation` includes the switches where `switches` is 0."""

    name: str
    config: str
    prompt: float
    response: float
    sequences: int
    recomputed: float
    generation: float
    switches: float
    reward: float
    log_prob: float
    ref: float
    update: float
    step: float
    tokens_per_second_per_npu: float


R1_ASCEND = PublishedStep(
    "verl r1_ascend, step 2",
    "a3_256die",
    prompt=175.1,
    response=1385.0,
    sequences=512 * 16,
    recomputed=1.0,
    generation=482.2,
    switches=0,
    reward=20.4,
    log_prob=105.5,
    ref=92.7,
    update=342.9,
    step=1044.8,
    tokens_per_second_per_npu=95.5,
)
TRUE_WEIGHT = PublishedStep(
    "cann-recipes, true weights, step 2",
    "a3_256die_true_weight",
    prompt=77.8,
    response=1576.6,
    sequences=512 * 16,
    recomputed=0.5,
    generation=373.65,
    switches=17.0,
    reward=5.0,
    log_prob=0,
    ref=144.5,
    update=319.3,
    step=859.68,
    tokens_per_second_per_npu=123.16,
)
RANDOM_INIT = PublishedStep(
    "cann-recipes, random weights, step 5",
    "a3_256die_random_init",
    prompt=75.0,
    response=3039.8,
    sequences=512 * 16,
    recomputed=0.5,
    generation=318.27,
    switches=35.63,
    reward=13.7,
    log_prob=0,
    ref=104.7,
    update=328.8,
    step=796.8,
    tokens_per_second_per_npu=250.2,
)
ROWS = (R1_ASCEND, TRUE_WEIGHT, RANDOM_INIT)
