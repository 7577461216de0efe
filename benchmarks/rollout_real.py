# SPDX-License-Identifier: Apache-2.0
"""Real engines for `benchmarks/rollout.py` and its proof: vLLM-Ascend on simulated dies, beside the replay of steps.

Everything is small: a tiny model, and answers of at most 40 tokens, so that moves have to pay sooner and are looked for
more often than in a rollout.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.rollout_steps import Answer, Counts, Rules, Step, replay
from recipe.tiny.sizes import SMALLEST
from tests.ranks import Ranks
from verl_patches.workers.rollout.vllm_rollout.balance import plan

SIZES, PROMPT, LONGEST = (2, 4, 8), 12, 40
# A budget below the longest sequence: prompts go in pieces, beside what decodes. Above: whole, and before it.
PIECES, WHOLE = 24, 256
PREFILL_WEIGHT, PAUSE_STEPS = 0.2, 3
Found = list[list[dict[str, Any]]]


class RealEngines:
    """A process that forks engines; what they write is in `directory`."""

    def __init__(self, directory: Path) -> None:
        from recipe.tiny.config import tiny_config
        from recipe.tiny.tokenizer import save_tokenizer

        tiny_config(SMALLEST, num_hidden_layers=2).save_pretrained(directory / "model")
        save_tokenizer(directory / "model")
        self._directory = directory
        self._ranks = Ranks("benchmarks.rollout_die", log=directory / "log")

    def generate(
        self,
        generations: list[dict[str, Any]],
        count: int,
        budget: int = PIECES,
        tp: int = 1,
        limit_s: float = 240,
        by_devices: bool = False,
    ) -> Found:
        """What each rank of `count` engines found of each generation (benchmarks/rollout_die.py).

        Args:
            generations: what `asked_of` makes, each with its "kind".
            count, tp: engines, and the dies of each.
            budget: most tokens of an engine's step.
            limit_s: seconds for all of them.
            by_devices: whether engines agree over their dies.

        Raises:
            AssertionError: a rank failed, or took too long; with the ends of their output.
        """
        job = {
            "tp": tp,
            "sizes": list(SIZES),
            "prompt": PROMPT,
            "longest": LONGEST,
            "budget": budget,
            "prefill_weight": PREFILL_WEIGHT,
            "pause": PAUSE_STEPS,
            "model": str(self._directory / "model"),
            "reference": {"seed": 5, "sizes": SMALLEST, "layers": 2},
            "out": str(self._directory / "found"),
            "generations": generations,
        }
        environment = {
            "VLLM_DP_SIZE": str(count),
            "VLLM_USE_V1": "1",
            "RECIPE_REQUEST_SEEDS": "1",
            "RECIPE_DP_SYNC_ON_DEVICE": str(int(by_devices)),
            "NPU_SIM_HBM": "256MiB",
            "OMP_NUM_THREADS": "1",
        }
        self._ranks.run(job, self._directory / "rank", ranks=count * tp, limit_s=limit_s, **environment)
        return [json.loads(Path(f"{job['out']}.{rank}.json").read_text()) for rank in range(count * tp)]

    def close(self) -> None:
        self._ranks.close()


def asked_of(count: int, seed: int, *, tail: bool = False, greedy: bool = True) -> dict[str, Any]:
    """Prompts and lengths for each engine: at random, or with few long ones, most of them on one engine."""
    drawn = random.Random(seed)
    lengths = []
    for engine in range(count):
        rows = [drawn.randrange(1, LONGEST + 1) for _ in range(SIZES[-1])]
        if tail:
            long = drawn.randrange(3, SIZES[-1] + 1) if engine == seed % count else drawn.randrange(0, 2)
            rows = [LONGEST - drawn.randrange(4) if row < long else drawn.randrange(1, 6) for row in range(SIZES[-1])]
            drawn.shuffle(rows)
        lengths.append(rows)
    prompts = [[[drawn.randrange(8, 200) for _ in range(drawn.randrange(1, PROMPT))] for _ in rows] for rows in lengths]
    rows = [list(range(SIZES[-1] * engine, SIZES[-1] * (engine + 1))) for engine in range(count)]
    return {"prompts": prompts, "lengths": lengths, "rows": rows, "seed": seed, "greedy": greedy}


def replayed(asked: dict[str, Any], budget: int, *, balanced: bool) -> tuple[Counts, list[Step]]:
    """The same answers without engines."""
    trace: list[Step] = []
    answers = [
        [
            Answer(((engine + 1) << 32) | row, len(prompt), length)
            for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]
        for engine, (prompts, lengths) in enumerate(zip(asked["prompts"], asked["lengths"], strict=True))
    ]
    rules = Rules(SIZES, budget, LONGEST, chunked=budget < PROMPT + LONGEST, balanced=balanced)
    with _small_planner():
        return replay(answers, rules, trace), trace


@contextmanager
def _small_planner() -> Iterator[None]:
    before = plan.PREFILL_WEIGHT, plan.PAUSE_STEPS
    plan.PREFILL_WEIGHT, plan.PAUSE_STEPS = PREFILL_WEIGHT, PAUSE_STEPS
    try:
        yield
    finally:
        plan.PREFILL_WEIGHT, plan.PAUSE_STEPS = before


def compared(engines: RealEngines, count: int, budget: int = PIECES, generations: int = 4) -> dict[str, int]:
    """How the steps of real engines compare with the replay's, and the answers with moves with those without."""
    asked = [asked_of(count, seed, tail=True) for seed in range(generations)]
    found = engines.generate([one | {"kind": kind} for one in asked for kind in ("plain", "planned")], count, budget)
    result = Counter[str]()
    for number, one in enumerate(asked):
        for kind, balanced in enumerate((False, True)):
            counts, trace = replayed(one, budget, balanced=balanced)
            reports = [rank[2 * number + kind] for rank in found]
            result["steps"] += len(trace)
            moved = [sum(column) for column in zip(*(report["moved"] for report in reports), strict=True)]
            same = moved == [counts.moved, counts.prefilled_again] and all(
                report["trace"] == [step.graph for step in trace] for report in reports
            )
            result["generations_with_other_steps"] += not same
            result["moved_requests"] += moved[0]
            result["prefilled_again_tokens"] += moved[1]
        for rank, prompts in zip(found, one["prompts"], strict=True):
            stayed, moving = rank[2 * number : 2 * number + 2]
            result["answers"] += len(prompts)
            result["other_answers"] += sum(a != b for a, b in zip(stayed["tokens"], moving["tokens"], strict=True))
            result["lost_requests"] += max(0, len(prompts) - len(moving["tokens"]))
            result["duplicated_requests"] += max(0, len(moving["tokens"]) - len(prompts))
    return dict(result)
