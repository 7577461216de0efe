# SPDX-License-Identifier: Apache-2.0
"""A rehearsal beside the plan of the same: bytes by phase and stage, and the traffic of a step by cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.plan import reshard, resident
from recipe.plan.memory import LEFT_BY_LATER, memory
from recipe.plan.saving import saved_copies
from recipe.plan.subject import Subject
from recipe.plan.traffic import Lengths, traffic
from recipe.rehearse.job import SWITCH, Phase, StageResult
from recipe.rehearse.subject import Rehearsed

TOLERANCE = 0.03


@dataclass(frozen=True)
class Pair:
    """What was counted and what was planned, in bytes."""

    counted: int
    planned: int

    @property
    def difference(self) -> float:
        """Of the plan from what was counted, as a share of the latter."""
        return self.planned / self.counted - 1 if self.counted else 0.0

    @property
    def is_off(self) -> bool:
        return abs(self.difference) > TOLERANCE


def planned_as_rehearsed(run: Rehearsed, phase: str = "") -> Subject:
    """The run as it is planned, with sequences as long as the rehearsed ones.

    Where they differ in length, all are as long as the longest; in a pass without gradients, as on average in the
    fullest of its micro-batches.
    """
    planned, lengths = run.planned, run.lengths
    prompt, response = lengths.prompts_spread.most, lengths.responses_spread.most
    if lengths.differ and phase in ("log_prob", "ref"):
        size = planned.layout.log_prob_micro_batch
        tokens_each = lengths.tokens(run.forward_sequences)
        fullest = max(sum(tokens_each[start : start + size]) for start in range(0, len(tokens_each), size))
        mean = -(-fullest // size)
        prompt = min(prompt, mean - 1)
        response = mean - prompt
    data = dataclasses.replace(planned.config.data, max_response_tokens=response)
    return dataclasses.replace(planned, prompt_tokens=prompt, config=dataclasses.replace(planned.config, data=data))


def compare_memory(run: Rehearsed, results: Sequence[StageResult]) -> dict[int, dict[str, Pair]]:
    """By stage and phase, the most on the die; planned for the tokens that its experts were sent."""
    return {
        result.stage: {
            name: Pair(phase.peak_bytes, planned)
            for name, phase in result.phases.items()
            if (planned := _planned(run, result, name, phase)) is not None
        }
        for result in results
    }


def _planned(run: Rehearsed, result: StageResult, name: str, phase: Phase) -> int | None:
    if is_unfinished(result, name):
        return None  # it did not come to its fullest moment
    if run.lengths.differ and name == "update":
        return None  # the plan knows no micro-batches in flight of different sizes
    subject = planned_as_rehearsed(run, name)
    if phase.expert_load is not None:
        subject = dataclasses.replace(subject, expert_load=phase.expert_load)
    kinds = memory(subject).dies[result.stage].phases.get(name)
    if kinds is None:
        return None
    absent = 0 if "rollout" in result.phases else engine_bytes(subject)
    if run.steps == 1:
        absent += sum(size for kind, size in kinds.items() if kind in LEFT_BY_LATER.get(name, ()))
    return sum(kinds.values()) - absent


def compare_saving(run: Rehearsed, results: Sequence[StageResult]) -> dict[int, dict[str, Pair]]:
    """By stage and kind, what a save copies on the host, for each die on the average of the stage's."""
    pairs = {}
    for result in results:
        if result.saved is not None:
            planned = saved_copies(run.planned, result.stage)
            copied = result.saved["of_stage"]
            pairs[result.stage] = {kind: Pair(copied[kind], planned[kind]) for kind in planned}
    return pairs


def is_unfinished(result: StageResult, phase: str) -> bool:
    """The phase is the one in which something did not fit."""
    return result.oom is not None and result.oom["phase"] == phase


def engine_bytes(subject: Subject) -> int:
    """What the plan has on a die because of the rollout engine, in phases in which that is not at work."""
    return resident.engine(dataclasses.replace(subject, stacked=False))  # MindSpeed's mask is the actor's


def compare_traffic(run: Rehearsed, results: Sequence[StageResult]) -> dict[str, Pair]:
    """Bytes that a die sends in a step by the causes that both know, of the rehearsed stage that sends most.

    What was counted in the rehearsed micro-batches is as many times as much in a step as that has more of them.
    """
    planned = _planned_traffic(run, results)
    counted: dict[str, float] = {}
    for result in results:
        by_cause: dict[str, float] = {}
        for name, phase in result.phases.items():
            if is_unfinished(result, name):
                continue
            times = _times(run, result.stage, name)
            for one in phase.traffic:
                cause = cause_of(name, one["kind"], one["group"])
                if cause is not None:
                    share = run.planned.config.train.updates_per_step if cause == OPTIMIZER else times
                    by_cause[cause] = by_cause.get(cause, 0.0) + sent_to_others(one) * share
        for cause, size in by_cause.items():
            counted[cause] = max(counted.get(cause, 0.0), size)
    return {cause: Pair(int(size), planned[cause]) for cause, size in counted.items() if planned.get(cause)}


def _planned_traffic(run: Rehearsed, results: Sequence[StageResult]) -> dict[str, int]:
    """Bytes by cause, of the stage that sends most, for sequences that are as long on average as the rehearsed ones."""
    subject, lengths = planned_as_rehearsed(run), run.lengths
    planned: dict[str, int] = {}
    for result in results:
        update = run.update_sequences(result.stage)
        means = [Lengths(*lengths.means(n), lengths.responses_spread.most) for n in (run.forward_sequences, update)]
        passes, updates = (traffic(subject, mean, [result.stage]) for mean in means)
        for cause, size in {**passes, _UPDATE: updates.get(_UPDATE, 0)}.items():
            # The switch is not rehearsed on every stage; and pipelined are passes of several means.
            unknown = cause in _RESHARD.values() and SWITCH not in result.phases
            if not unknown and not (cause == PIPELINE and lengths.differ):
                # The plan looks for the die of a stage that lacks most; rehearsed is the stage's first.
                there = reshard.received_directly(subject)[run.rank(result.stage)] if cause == DIRECT else size
                planned[cause] = max(planned.get(cause, 0), there)
    return planned


DIRECT = "reshard, direct"
PIPELINE, OPTIMIZER = "pipeline", "gradients and parameters"
_EXPERTS = "expert all-to-all, {}"
_UPDATE = _EXPERTS.format("update")
_RESHARD = {
    ("broadcast", "pipeline"): "reshard, pipeline broadcast",
    ("allgather", "expert"): "reshard, expert all-gather",
    ("allgather", "data"): "reshard, expert all-gather",  # data parallel ranks are those of the experts, too
    ("allgather", "tensor"): "reshard, tensor all-gather",
    ("recv", "world"): DIRECT,
}


def cause_of(phase: str, kind: str, group: str) -> str | None:
    """The cause, as the plan names it, of a collective of this kind in this phase; None where the plan has none."""
    if phase in ("build", "rollout"):  # a trial step, and some of the answers' tokens
        return None
    if phase == SWITCH:
        return _RESHARD.get((kind, group.split("/")[0]))
    if "alltoall" in kind:
        return _EXPERTS.format(phase)
    if kind == "send":
        return PIPELINE
    if phase == "update" and ("reduce_scatter" in kind or "allgather" in kind):
        return OPTIMIZER
    return None


def sent_to_others(one: Mapping[str, Any]) -> float:
    """Bytes of a collective that leave the die: all but its own part."""
    if one["kind"] == "send":
        return float(one["sent"])
    if one["kind"] in ("broadcast", "recv"):  # of a sync: what the others have, which the plan counts where it arrives
        return float(one["received"])
    whole = one["received"] if "allgather" in one["kind"] else one["sent"]
    return float(whole * (1 - 1 / one["size"]))


def _times(run: Rehearsed, stage: int, phase: str) -> float:
    """Sequences of a step for each that was rehearsed."""
    if phase == SWITCH:
        return 1.0
    every = run.planned.layout.actor_sequences_per_rank
    return every / (run.update_sequences(stage) if phase == "update" else run.forward_sequences)


def worst_difference(memory_pairs: Mapping[int, Mapping[str, Pair]]) -> float | None:
    """The largest difference of the plan in any phase of any stage, without its sign; None where none is compared."""
    pairs = (pair for phases in memory_pairs.values() for pair in phases.values())
    return max((abs(pair.difference) for pair in pairs), default=None)
