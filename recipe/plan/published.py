# SPDX-License-Identifier: Apache-2.0
"""Steps that others published: what was run and how long each phase took. Nothing of this was measured here.

Only steps whose model, devices, lengths and batch were all found are here. What was looked at and left out, and why,
is in docs/PLAN.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recipe.models.architecture import Architecture
from recipe.models.published import KNOWN
from recipe.plan.traffic import Lengths
from recipe.plan.work import Setting, packed

GENERATION, REWARD, LOG_PROB, REF, UPDATE = PHASES = (
    "generation and switches", "reward", "log_prob", "ref", "update"
)  # fmt: skip


@dataclass(frozen=True)
class PublishedStep:
    """One step.

    Attributes:
        name: for a table.
        source: the publication: steps of one publication were run by the same people with the same code.
        hardware: a key of `recipe.runfile.schema.HARDWARE`.
        devices: that throughput was published for; an A3 NPU is two dies.
        model, setting, mean: the model, the layout, and the lengths of the step.
        seconds: published, by phase; generation with the switches before and after it.
        step_s: of the whole step, published.
        phases: that the whole step consists of.
        tokens_per_second: per device, published.
        dispatch_s: of `seconds`, what is known to be the trainer's way of handing data to its workers then, by phase.
        held_out: why no constant is fitted to it; empty where they are.
        config: the run file here that is modelled on it.
    """

    name: str
    source: str
    hardware: str
    devices: int
    model: Architecture
    setting: Setting
    mean: Lengths
    seconds: Mapping[str, float]
    step_s: float | None = None
    phases: tuple[str, ...] = PHASES
    tokens_per_second: float | None = None
    dispatch_s: Mapping[str, float] = field(default_factory=dict)
    held_out: str = ""
    config: str | None = None


# verl 0.6 recipe/r1_ascend: its README's table of one training step, and its launch script (448c6c3).
_R1_ASCEND = Setting(
    dies=256,
    sequences=512 * 16,
    engine_tensor=2,
    engine_expert=256,
    engine_sequences=64,
    stages=8,
    pass_micro_batches=256 // 4,
    update_micro_batches=256,
    recomputed=1.0,
)
R1_ASCEND = PublishedStep(
    "verl r1_ascend, step 2",
    "verl r1_ascend",
    "a3_128",
    128,
    KNOWN["deepseek_v3_671b"],
    _R1_ASCEND,
    Lengths(175.1, 1385.0, 2048),
    {GENERATION: 482.2, REWARD: 20.4, LOG_PROB: 105.5, REF: 92.7, UPDATE: 342.9},
    step_s=1044.8,
    tokens_per_second=95.5,
    config="a3_256die",
)

# hicann/cann-recipes-train docs/llm_rl/deepseek_rl_train_optimization.md (93819a7), sections 1.4.1, 1.4.2 and 3.2.4,
# and its launch scripts: TP4 EP8 PP8, so 8 data parallel ranks of 1024 sequences.
_CANN_DEEPSEEK = "cann-recipes-train, DeepSeek"
_WITHOUT_OLD_LOG_PROB = (GENERATION, REWARD, REF, UPDATE)


def _cann_deepseek(engine_expert: int) -> Setting:
    return Setting(
        dies=256,
        sequences=512 * 16,
        engine_tensor=2,
        engine_expert=engine_expert,
        engine_sequences=64,
        stages=8,
        pass_micro_batches=1024 // 8,
        update_micro_batches=1024,
        recomputed=0.5,
    )


TRUE_WEIGHT = PublishedStep(
    "cann-recipes, true weights, step 2",
    _CANN_DEEPSEEK,
    "a3_128",
    128,
    KNOWN["deepseek_v3_671b"],
    _cann_deepseek(engine_expert=128),
    Lengths(77.8, 1576.6, 3072),
    {GENERATION: 373.65 + 17.0, REWARD: 5.0, REF: 144.5, UPDATE: 319.3},
    step_s=859.68,
    phases=_WITHOUT_OLD_LOG_PROB,
    tokens_per_second=123.16,
    config="a3_256die_true_weight",
)
RANDOM_INIT = PublishedStep(
    "cann-recipes, random weights, step 5",
    _CANN_DEEPSEEK,
    "a3_128",
    128,
    KNOWN["deepseek_v3_671b"],
    _cann_deepseek(engine_expert=256),
    Lengths(75.0, 3039.8, 3072),
    {GENERATION: 318.27 + 35.63, REWARD: 13.7, REF: 104.7, UPDATE: 328.8},
    step_s=796.8,
    phases=_WITHOUT_OLD_LOG_PROB,
    tokens_per_second=250.2,
    config="a3_256die_random_init",
)
# Lengths are given as 0.075 K and 3 K; how much later the last die starts than the first, as about 57 and 73 s.
STOCK_DISPATCH = PublishedStep(
    "cann-recipes, random weights, stock dispatch, step 3",
    _CANN_DEEPSEEK,
    "a3_128",
    128,
    KNOWN["deepseek_v3_671b"],
    _cann_deepseek(engine_expert=256),
    Lengths(75.0, 3039.8, 3072),
    {REF: 156.804, UPDATE: 400.891},
    dispatch_s={REF: 57, UPDATE: 73},
    held_out="the run with random weights once more, but for the dispatch",
)

# hicann/cann-recipes-train docs/llm_rl/qwen3_235B_32k_longseq_rl_train_optimization.md (93819a7), section 1.3, and its
# launch scripts: rollout TP4 EP128, actor TP4 PP4 CP4; two data parallel ranks, which pack up to a longest sequence.
# No layer is recomputed but what MindSpeed hides behind communication (moe_zero_memory).
_CANN_QWEN3 = "cann-recipes-train, Qwen3"


def _cann_qwen3(sequences: int, mean: Lengths, longest: int) -> Setting:
    micro_batches = packed(sequences / 2 * mean.sequence, longest)
    return Setting(
        dies=128,
        sequences=sequences,
        engine_tensor=4,
        engine_expert=128,
        engine_sequences=sequences // 32,
        stages=4,
        pass_micro_batches=micro_batches,
        update_micro_batches=micro_batches,
        recomputed=0.0,
    )


_GRPO, _DAPO = Lengths(73.7, 7344.973, 32768), Lengths(132.78, 10119.23, 34816)
QWEN3_GRPO = PublishedStep(
    "cann-recipes, Qwen3-235B GRPO, step 1",
    _CANN_QWEN3,
    "a3_128",
    64,
    KNOWN["qwen3_235b_a22b"],
    _cann_qwen3(512 * 16, _GRPO, 2048 + 32768),
    _GRPO,
    # Of the step, 75.96 s are in none of its phases: the switches.
    {GENERATION: 4065.71 + 75.96, REWARD: 21.538, REF: 1262.269, UPDATE: 2353.23},
    step_s=7780.36,
    phases=_WITHOUT_OLD_LOG_PROB,
    tokens_per_second=122.05,
)
# Two batches were generated and one trained on: one generation, without switches, and the update.
QWEN3_DAPO = PublishedStep(
    "cann-recipes, Qwen3-235B DAPO, step 1",
    _CANN_QWEN3,
    "a3_128",
    64,
    KNOWN["qwen3_235b_a22b"],
    _cann_qwen3(128 * 16, _DAPO, 2048 + 34816),
    _DAPO,
    {GENERATION: 3262.39, UPDATE: 797.93},
    phases=(GENERATION, UPDATE),
)

# verl 0.6.1 docs/perf/dpsk.md (d62da49), "Benchmark", and the script it names,
# examples/grpo_trainer/run_deepseek671b_math_megatron_96gb.sh: TP8 PP12, one data parallel rank, which packs up to
# 11,680 tokens; three optimizer steps; engines of 32 GPUs without expert parallelism. The mean prompt is not published:
# that of the same data in `QWEN3_DAPO`. Nor is the update's time: it follows from the MFU of 0.19 that verl's
# utils/flops_counter.py gives, which counts 6 operations for each active parameter, the embedding among them.
_H20 = Lengths(132.78, 1960.0, 1204 * 8)
_H20_MICRO_TOKENS, H20_MFU = 2048 + 1204 * 8, 0.19
H20_DEEPSEEK = PublishedStep(
    "verl, DeepSeek-V3 on 96 H20",
    "verl docs/perf",
    "h20_96",
    96,
    KNOWN["deepseek_v3_671b"],
    Setting(
        dies=96,
        sequences=96 * 8,
        engine_tensor=32,
        engine_expert=32,
        engine_sequences=96 * 8 // 3,
        stages=12,
        pass_micro_batches=packed(96 * 8 * _H20.sequence, _H20_MICRO_TOKENS),
        update_micro_batches=packed(32 * 8 * _H20.sequence, _H20_MICRO_TOKENS),
        recomputed=1.0,
        exchanges_experts=False,
    ),
    _H20,
    {GENERATION: 1050.0, UPDATE: 156.7},
    step_s=1700.0,
)

# verl-project/verl-ascend-recipe baseline/a2 and baseline/a3 (2a3edec), means of steps 5 to 14, and the scripts that
# they are of, verl-project/verl tests/special_npu/nightly_ci_ascend (1542807). Tokens of a step are throughput times
# devices times seconds; how they divide into prompt and answer is not published: 132.78 for a prompt, as above.
_NIGHTLY = "verl-ascend-recipe, nightly"
_TOTAL_ALONE = "the time of the whole step alone is published"
MOONLIGHT_A2 = PublishedStep(
    "nightly, Moonlight-16B on 8 A2",
    _NIGHTLY,
    "a2_64",
    8,
    KNOWN["moonlight_16b_a3b"],
    Setting(
        dies=8,
        sequences=32 * 16,
        engine_tensor=4,
        engine_expert=4,
        engine_sequences=32 * 16 // 2,
        stages=4,
        pass_micro_batches=packed(287_370, 3 * 3072 * 2),
        update_micro_batches=packed(287_370, 3072 * 2),
        recomputed=1.0,
        exchanges_experts=False,
    ),
    Lengths(132.78, 287_370 / 512 - 132.78, 2048),
    {},
    step_s=413.00361,
    tokens_per_second=86.976111,
    held_out=_TOTAL_ALONE,
)
QWEN3_A3 = PublishedStep(
    "nightly, Qwen3-30B with SGLang on 16 dies of A3",
    _NIGHTLY,
    "a3_128",
    16,
    KNOWN["qwen3_30b_a3b"],
    Setting(
        dies=16,
        sequences=16 * 8,
        engine_tensor=4,
        engine_expert=4,
        engine_sequences=16 * 8 // 4,
        stages=1,
        pass_micro_batches=32,
        update_micro_batches=32,
        recomputed=1.0,
        exchanges_experts=False,
    ),
    Lengths(132.78, 555_099 / 128 - 132.78, 8192),
    {},
    step_s=481.8032,
    tokens_per_second=72.00804,
    held_out=_TOTAL_ALONE,
)

ROWS = (
    R1_ASCEND,
    TRUE_WEIGHT,
    RANDOM_INIT,
    STOCK_DISPATCH,
    QWEN3_GRPO,
    QWEN3_DAPO,
    H20_DEEPSEEK,
    MOONLIGHT_A2,
    QWEN3_A3,
)
FITTED = tuple(row for row in ROWS if not row.held_out)
