# SPDX-License-Identifier: Apache-2.0
"""What `plan --fit` finds for every family, as the tables of docs/PLAN.md: `python -m recipe.plan.fit_table` writes
them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from recipe.files import write_atomically
from recipe.marked_text import with_part
from recipe.own_packages import REPOSITORY
from recipe.plan.cluster import MOST_NODES
from recipe.plan.duration import estimate
from recipe.plan.fit import Wanted, fit
from recipe.plan.page import TITLES, fullest_by_phase
from recipe.plan.subject import Subject
from recipe.plan.traffic import lengths
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import GIB, HARDWARE, OFFLOADED

BEGIN = "<!-- fit: written by `python -m recipe.plan.fit_table` -->"
END = "<!-- fit: end -->"
MODELS = (
    "moonlight_16b_a3b", "deepseek_v3_671b", "kimi_k2", "qwen3_30b_a3b", "qwen3_235b_a22b", "qwen3_8b", "qwen3_32b",
    "qwen2_5_7b", "llama3_1_8b", "llama3_1_70b",
)  # fmt: skip
PAIRS = tuple(itertools.product(MODELS, HARDWARE))


@dataclass(frozen=True)
class Words:
    """What a table says in one language: its head, the phases, and that no cluster has room."""

    head: str
    phases: Mapping[str, str]
    nowhere: str


PAGES = {
    REPOSITORY / "docs" / "PLAN.md": Words(
        "| model | `hardware` | nodes, dies | rollout | actor | fullest phase | GiB, of | step, s |",
        TITLES,
        f"none up to {MOST_NODES}",
    ),
    REPOSITORY / "docs" / "zh" / "PLAN.md": Words(
        "| 模型 | `hardware` | 节点、die | rollout | actor | 最满的阶段 | GiB、容量 | 一步的秒数 |",
        TITLES | {"log_prob": "旧 log-prob", "update": "更新", "switch": "训推切换"},
        f"{MOST_NODES} 个以内没有",
    ),
}


@dataclass(frozen=True)
class Found:
    """What was found for a model on a kind of node.

    Attributes:
        nodes, dies: of the cluster.
        rollout, actor: the layout.
        phase: the fullest.
        full, limit: bytes of the fullest die in it, with what torch does not count, and of a die.
        seconds: that a step is estimated to take.
    """

    nodes: int
    dies: int
    rollout: str
    actor: str
    phase: str
    full: int
    limit: int
    seconds: float


def find(model: str, hardware: str) -> Found | None:
    """What is found for this pair; None where no cluster has room."""
    try:
        found = fit(Wanted(model=model, hardware=hardware, shared="/shared")).found
    except ConfigError:
        return None
    run, time = found.run, estimate(found.run, lengths(found.run, None, None))
    assert time is not None  # simulated dies are no hardware to ask for
    phase, _, full = max(fullest_by_phase(found.memory), key=lambda one: one[2])
    return Found(
        nodes=run.config.cluster.nodes,
        dies=run.layout.dies,
        rollout=_rollout(run),
        actor=_actor(run),
        phase=phase,
        full=full,
        limit=found.memory.limit,
        seconds=time.step.estimate,
    )


def _rollout(run: Subject) -> str:
    layout = run.layout
    instances = f"{layout.rollout_instances} x " if layout.rollout_instances > 1 else ""
    experts = layout.rollout_expert if run.model.experts else 1
    return instances + _sizes(DP=layout.rollout_data, TP=layout.rollout_tensor, EP=experts)


def _actor(run: Subject) -> str:
    """The layout, with what is done to save memory by its keys of the run file, beyond what is always done."""
    layout, actor = run.layout, run.config.actor
    experts = layout.actor_expert if run.model.experts else 1
    saving = [] if actor.recompute is None else ["recompute"]
    saving += [] if actor.optimizer == OFFLOADED else [actor.optimizer]
    return ", ".join([_sizes(DP=layout.actor_data, PP=layout.actor_pipeline, EP=experts), *saving])


def _sizes(**sizes: int) -> str:
    return " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1)


def row(model: str, hardware: str, found: Found | None, words: Words) -> str:
    """A line of the table."""
    if found is None:
        cells = [words.nowhere, "", "", "", "", ""]
    else:
        full = f"{found.full / GIB:.1f}, {found.limit / GIB:.1f}"
        size = f"{found.nodes}, {found.dies}"
        cells = [size, found.rollout, found.actor, words.phases[found.phase], full, f"{found.seconds:.0f}"]
    return f"| {' | '.join([f'`{model}`', f'`{hardware}`', *cells])} |"


def table(words: Words, found: Mapping[tuple[str, str], Found | None]) -> Iterator[str]:
    """Lines of the table in one language, of what was found for each of the `PAIRS`."""
    yield words.head
    yield "|---|---|---:|---|---|---|---:|---:|"
    for pair in PAIRS:
        yield row(*pair, found[pair], words)


def main() -> int:
    """Write the tables into the pages."""
    found = {pair: find(*pair) for pair in PAIRS}
    for page, words in PAGES.items():
        write_atomically(page, with_part(page, BEGIN, END, "\n".join(table(words, found))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
