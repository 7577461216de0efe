# SPDX-License-Identifier: Apache-2.0
"""A rehearsal beside the plan of the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.memory import memory
from recipe.plan.reshard import received_directly
from recipe.plan.stages import stage_tensors
from recipe.rehearse.comparison import (
    DIRECT,
    OPTIMIZER,
    PIPELINE,
    Pair,
    cause_of,
    compare_memory,
    compare_traffic,
    planned_as_rehearsed,
    sent_to_others,
    worst_difference,
)
from recipe.rehearse.job import SWITCH
from tests.recipe.rehearse.made_up import a_phase, a_run, as_planned


def moved(kind: str, size: int, sent: int, received: int) -> dict[str, Any]:
    return {"group": "g", "size": size, "kind": kind, "calls": 1, "sent": sent, "received": received}


def test_a_difference_is_the_plan_s_from_what_was_counted() -> None:
    run = a_run()
    results = [as_planned(run, 0), as_planned(run, 1, times=1.25)]
    pairs = compare_memory(run, results)
    assert set(pairs) == {0, 1} and set(pairs[1]) == {"log_prob", "ref", "update"}
    assert all(abs(pair.difference) < 1e-6 and not pair.is_off for pair in pairs[0].values())
    assert all(pair.difference == pytest.approx(-0.2) and pair.is_off for pair in pairs[1].values())
    assert worst_difference(pairs) == pytest.approx(0.2)


def test_the_plan_is_of_the_tokens_that_were_sent_and_of_lengths_as_rehearsed() -> None:
    # Of short answers, and many tokens for these experts: of long ones the stand-in's attention takes most.
    some = a_run(response=1)
    result = as_planned(some, 1)
    sent = {name: dataclasses.replace(phase, expert_load=8.0) for name, phase in result.phases.items()}
    more, even = (compare_memory(some, [dataclasses.replace(result, phases=one)])[1] for one in (sent, result.phases))
    assert all(more[name].planned > even[name].planned for name in ("log_prob", "ref", "update"))
    run = a_run()
    short = memory(planned_as_rehearsed(a_run(response=1))).dies[1]
    assert short.total("log_prob") < memory(planned_as_rehearsed(run)).dies[1].total("log_prob")
    assert planned_as_rehearsed(a_run(response=1)).layout == planned_as_rehearsed(run).layout


def test_before_the_first_pass_nothing_is_left_of_one() -> None:
    kinds = memory(a_run().planned).dies[0].phases["switch"]
    left = kinds["left of the last pass"] + kinds["left by the update"]
    for steps, absent in ((1, left), (2, 0)):
        run = a_run(steps=steps)
        phases = {"switch": a_phase(1), "rollout": a_phase(1)}
        pairs = compare_memory(run, [dataclasses.replace(as_planned(run, 0), phases=phases)])[0]
        assert pairs["switch"].planned == sum(kinds.values()) - absent
    assert left > 2**28


def test_a_phase_that_did_not_fit_is_not_compared() -> None:
    run = a_run()
    result = as_planned(run, 1, oom={"phase": "update", "stage": 1})
    assert set(compare_memory(run, [result])[1]) == {"log_prob", "ref"}
    one = [moved("alltoall_base", 32, 3200, 3200)]
    sent = {name: dataclasses.replace(phase, traffic=one) for name, phase in result.phases.items()}
    found = compare_traffic(run, [dataclasses.replace(result, phases=sent)])
    assert set(found) == {"expert all-to-all, log_prob", "expert all-to-all, ref"}
    nothing = dataclasses.replace(result, phases={"update": result.phases["update"]})
    assert worst_difference(compare_memory(run, [nothing])) is None and not compare_traffic(run, [nothing])


@pytest.mark.parametrize(
    ("phase", "kind", "group", "cause"),
    [
        ("ref", "alltoall_base", "data/expert", "expert all-to-all, ref"),
        ("update", "send", "pipeline/model", PIPELINE),
        ("update", "recv", "pipeline/model", None),
        ("update", "_reduce_scatter_base", "data/expert", OPTIMIZER),
        ("update", "_allgather_base", "data/expert", OPTIMIZER),
        ("log_prob", "_allgather_base", "data/expert", None),
        ("update", "allreduce", "data/expert", None),
        ("switch", "broadcast", "pipeline/model", "reshard, pipeline broadcast"),
        ("switch", "allgather", "data/expert", "reshard, expert all-gather"),
        ("switch", "allgather", "expert", "reshard, expert all-gather"),
        ("switch", "allgather", "tensor", "reshard, tensor all-gather"),
        ("switch", "allgather", "pipeline/model", None),  # names and shapes
        ("switch", "recv", "world", "reshard, direct"),
        ("switch", "send", "world", None),
        ("rollout", "alltoall", "world", None),
        ("build", "alltoall", "world", None),
    ],
)
def test_a_collective_has_the_plan_s_cause(phase: str, kind: str, group: str, cause: str | None) -> None:
    assert cause_of(phase, kind, group) == cause


def test_a_die_keeps_its_own_part() -> None:
    assert sent_to_others(moved("alltoall_base", 4, 100, 100)) == 75
    assert sent_to_others(moved("_allgather_base", 4, 25, 100)) == 75
    assert sent_to_others(moved("send", 4, 100, 0)) == 100
    assert sent_to_others(moved("recv", 256, 0, 100)) == 100


def test_traffic_of_the_rehearsed_micro_batches_is_that_of_a_step() -> None:
    run = a_run()
    every = run.planned.layout.actor_sequences_per_rank
    phases = {
        "ref": a_phase(1, traffic=[moved("alltoall_base", 32, 3200, 3200)]),
        "update": a_phase(1, traffic=[moved("send", 8, 10, 0), moved("_reduce_scatter_base", 32, 3200, 100)]),
    }
    results = [dataclasses.replace(as_planned(run, stage), phases=phases) for stage in (0, 1)]
    found = compare_traffic(run, results)
    assert found["expert all-to-all, ref"].counted == 3100 * every // 8
    # Stage 1 has fewer micro-batches in flight: what was counted in them stands for more.
    assert found[PIPELINE].counted == 10 * every // 8
    assert found[OPTIMIZER].counted == 3100 * run.given.train.updates_per_step
    assert all(pair.planned > 0 for pair in found.values())


def test_a_switch_is_that_of_the_stages_on_which_it_was_rehearsed() -> None:
    run = a_run(file="configs/a3_384die_base_acc.toml")
    broadcast = {**moved("broadcast", 6, 0, 7), "group": "pipeline/model"}
    switch = a_phase(1, traffic=[broadcast])
    results = {stage: as_planned(run, stage) for stage in run.stages}
    planned = {}
    for stage in (0, 1):  # the stages have different parts of the model, and receive the others
        one = dataclasses.replace(results[stage], phases={**results[stage].phases, SWITCH: switch})
        found = compare_traffic(run, [one, *(result for result in results.values() if result.stage != stage)])
        pair = found["reshard, pipeline broadcast"]
        assert pair.counted == 7
        planned[stage] = pair.planned
    total = sum(tensor.nbytes for stage in run.stages for tensor in stage_tensors(run.planned, stage))
    own = {stage: sum(tensor.nbytes for tensor in stage_tensors(run.planned, stage)) for stage in planned}
    assert planned == {stage: total - own[stage] for stage in planned} and planned[0] != planned[1]


def test_a_direct_sync_is_that_of_the_die_that_was_rehearsed() -> None:
    run = a_run(direct_sync=True)
    stage = next(stage for stage in run.stages if lacking_most(run, stage) != run.rank(stage))
    switch = a_phase(1, traffic=[{**moved("recv", 256, 0, 7), "group": "world"}])
    result = as_planned(run, stage)
    found = compare_traffic(run, [dataclasses.replace(result, phases={**result.phases, SWITCH: switch})])
    assert found[DIRECT] == Pair(7, received_directly(run.planned)[run.rank(stage)])


def lacking_most(run: Any, stage: int) -> int:
    """The die of a stage that receives most."""
    received, first = received_directly(run.planned), run.rank(stage)
    return max(range(first, run.rank(stage + 1)), key=lambda die: received[die])


def test_nothing_counted_is_no_difference() -> None:
    assert Pair(0, 0).difference == 0.0


def test_where_lengths_differ_the_plan_is_of_what_was_drawn(tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_text("part,tokens,count\nprompt,100,1\nprompt,300,1\nresponse,50,3\nresponse,3000,1\n")
    run = a_run(lengths=file)
    size, tokens = run.planned.layout.log_prob_micro_batch, run.lengths.tokens(run.forward_sequences)
    fullest = max(sum(tokens[start : start + size]) for start in range(0, len(tokens), size))
    assert size * min(tokens) < fullest < size * max(tokens)
    for phase in ("log_prob", "ref"):
        assert 0 <= size * planned_as_rehearsed(run, phase).sequence_tokens - fullest < size
    assert planned_as_rehearsed(run, "rollout").sequence_tokens == 3300

    one = [moved("alltoall_base", 32, 3200, 3200)]
    phases = {name: a_phase(5, traffic=[*one, moved("send", 8, 10, 0)]) for name in ("log_prob", "ref", "update")}
    result = dataclasses.replace(as_planned(run, 1), phases=phases)
    assert set(compare_memory(run, [result])[1]) == {"log_prob", "ref"}
    found, all_long = compare_traffic(run, [result]), compare_traffic(a_run(prompt=300, response=3000), [result])
    assert PIPELINE in all_long and set(found) == set(all_long) - {PIPELINE}
    for name, number in (("log_prob", run.forward_sequences), ("update", run.update_sequences(1))):
        cause = f"expert all-to-all, {name}"
        share = sum(run.lengths.tokens(number)) / number / 3300
        assert found[cause].planned == pytest.approx(share * all_long[cause].planned)
