# SPDX-License-Identifier: Apache-2.0
"""The page and the JSON of a rehearsal."""

from __future__ import annotations

import dataclasses
import json

from recipe.rehearse.page import Times, as_json, as_text
from tests.recipe.rehearse.made_up import a_phase, a_run, as_planned, with_save

GIB = 2**30
OOM = {
    "stage": 1, "phase": "update", "wanted_bytes": 3 * GIB, "free_bytes": GIB,
    "contents": {"gradients": 20 * GIB, "activations": 43 * GIB}, "error": "NPU out of memory",
}  # fmt: skip


def test_the_page_has_a_row_for_each_phase_and_marks_what_is_off() -> None:
    run = a_run()
    text = as_text(run, [as_planned(run, 0), as_planned(run, 1, times=1.25)], Times(12.0, 3.0))
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("Stage")] == ["Stage 0, die 0", "Stage 1, die 32"]
    marked = [line for line in lines if "more than 3%" in line]
    assert len(marked) == 3 and all("stage 1" in line and "-20.0%" in line for line in marked)
    assert sum("  stage 0  " in line for line in lines) == 3
    assert "largest difference in memory 20.0%; the stages took 12 s, this call 3 s, 1.0 GiB" in " ".join(text.split())
    assert all(len(line) <= 120 for line in lines)


def test_the_largest_contents_and_collectives_are_shown() -> None:
    run = a_run()
    many = {f"kind {number}": (9 - number) * GIB for number in range(7)}
    one = {"group": "expert", "size": 32, "kind": "alltoall_base", "calls": 1234, "sent": 3 * GIB, "received": 5}
    phase = a_phase(GIB, contents=many, traffic=[one])
    text = as_text(run, [dataclasses.replace(as_planned(run, 0), phases={"update": phase})], Times(1.0, 1.0))
    assert "kind 4" in text and "kind 5" not in text
    line = next(line for line in text.splitlines() if "alltoall_base" in line)
    assert line.split() == ["update:", "alltoall_base,", "expert", "32", "1,234", "3.0", "GiB", "5", "B"]


def test_what_did_not_fit_is_one_line_with_phase_stage_and_cause() -> None:
    run = a_run()
    text = as_text(run, [as_planned(run, 1, oom=OOM)], Times(1.0, 1.0))
    assert text.splitlines()[-1] == (
        "OUT OF MEMORY: update, stage 1: 3.0 GiB wanted and 1.0 GiB free, beside gradients 20.0 GiB, "
        "activations 43.0 GiB, outside torch 5.7 GiB"
    )


def test_where_nothing_is_compared_there_is_no_table() -> None:
    run = a_run()
    result = as_planned(run, 1, oom=OOM)
    text = as_text(run, [dataclasses.replace(result, phases={"update": result.phases["update"]})], Times(1.0, 1.0))
    assert "Plan beside" not in text and "largest difference" not in text and "OUT OF MEMORY" in text


def test_what_a_die_holds_outside_torch_is_added_to_the_fullest_phase() -> None:
    run = a_run()
    assert 5 * GIB < run.outside_bytes < 10 * GIB and a_run("configs/sim.toml").outside_bytes == 0
    peak = 50 * GIB - run.outside_bytes
    result = dataclasses.replace(as_planned(run, 1), phases={"ref": a_phase(5), "update": a_phase(peak)})
    said = " ".join(as_text(run, [result], Times(1.0, 1.0)).partition("beside that, ")[2].split())
    assert said == (
        "5.7 GiB of a die are outside torch, by the plan: with them, 50.0 GiB of 61.3 GiB at most, update on stage 1"
    )


def test_json_is_as_the_rehearsal_s_readers_expect() -> None:
    run = a_run(expert_load=1.5)
    results = [as_planned(run, 0, numbers_read={"a:b": 2}), as_planned(run, 1, oom=OOM, numbers_read={"a:b": 3})]
    made = json.loads(json.dumps(as_json(run, results, Times(12.3456, 3.0))))
    assert (
        made["run"] == "a3_256die_random_init"
        and made["wall_s"] == 12.346
        and made["call_s"] == 3.0
        and made["rss_bytes"] == GIB
    )
    assert made["oom"] == OOM and made["worst_difference"] < 1e-6 and isinstance(made["traffic"], dict)
    stage = made["stages"][0]
    assert stage["stage"] == 0 and set(stage["phases"]) == {"log_prob", "ref", "update"}
    phase = stage["phases"]["update"]
    assert phase["peak_bytes"] > 0 and abs(phase["planned_bytes"] / phase["peak_bytes"] - 1) < 1e-6
    assert made["stages"][1]["phases"]["update"]["planned_bytes"] is None
    steering = made["steering"]
    assert steering["numbers_read"] == {"a:b": 5} and steering["expert_load"] == 1.5
    assert steering["lengths"]["prompt"] == {"least": 1024, "mean": 1024.0, "most": 1024}
    assert steering["lengths"]["forward"] == [[1024, 3072]] * 8 == steering["lengths"]["update"]["1"]
    assert len(steering["lengths"]["rollout"]) == 64 and steering["sequences"]["1"] == {"forward": 8, "update": 8}


def test_a_save_is_on_the_page_and_in_the_json_beside_the_plan() -> None:
    run = a_run("configs/a3_384die_base_acc.toml")
    results = [with_save(run, as_planned(run, 0)), with_save(run, as_planned(run, 1), times=2.0)]
    text = as_text(run, results, Times(1.0, 1.0))
    lines = text.splitlines()
    assert "2 files of 1.5 GiB not written" in " ".join(text.split())
    marked = [line for line in lines if "checkpoint: copied" in line and "more than 3%" in line]
    assert len(marked) == 2 and all("stage 1" in line and "-50.0%" in line for line in marked)
    assert "planned is the average" in " ".join(text.split())
    made = as_json(run, results, Times(1.0, 1.0))
    saved = made["stages"][0]["saved"]
    assert saved["files"] == {"a": 2**30, "b": 2**29} and set(saved["copied_bytes"].values()) == {2**30}
    assert saved["copied_bytes_average"] == saved["planned_bytes_average"]
    assert len(made["reasons"]) == 1
    assert as_json(run, [as_planned(run, 0)], Times(1.0, 1.0))["stages"][0]["saved"] is None


def test_known_reasons_of_differences_are_named() -> None:
    run = a_run(micro_batches=1)
    more = as_text(run, [as_planned(run, 0, times=0.5)], Times(1.0, 1.0))
    assert "more than were asked for here" in " ".join(more.split())
    assert "asked for here" not in as_text(a_run(), [as_planned(run, 0, times=0.5)], Times(1.0, 1.0))
    assert "a model this small" not in more
    small = a_run("configs/sim.toml")
    assert "a model this small" in as_text(small, [as_planned(small, 0, times=0.5)], Times(1.0, 1.0))
