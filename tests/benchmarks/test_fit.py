# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/fit.py` says of run files that `plan --fit` prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import fit as benchmark
from benchmarks.fit import Row, fill, fullest_stage, rehearse, table
from recipe.plan.fit import Wanted
from recipe.plan.memory import memory
from recipe.tiny.config import tiny_fields
from recipe.tiny.tokenizer import save_tokenizer
from tests.recipe.rehearse.made_up import a_run, as_planned

REPO = Path(__file__).resolve().parents[2]
GIB = 2**30
OOM = {
    "stage": 1, "phase": "update", "wanted_bytes": 3 * GIB, "free_bytes": GIB,
    "contents": {"gradients": 20 * GIB}, "error": "NPU out of memory",
}  # fmt: skip


def test_a_row_has_what_was_planned_and_counted_and_what_is_left() -> None:
    run, row = a_run(), Row("m", "a3_128", dies=256, stage=1)
    fill(row, run, [as_planned(run, 1, times=0.8)])
    assert row.counted["update"] == pytest.approx(0.8 * row.planned["update"])
    full = max(row.counted.values())
    assert row.left == pytest.approx((run.config.hbm_bytes_per_die - run.outside_bytes) / GIB - full)
    (head, rule, line) = table([row]).splitlines()
    assert head == "| model | `hardware` | dies | stage | old log-prob | reference | update | left |"
    assert rule.count("|") == head.count("|") == line.count("|")
    assert line.startswith("| `m` | `a3_128` | 256 | 1 | ") and f"{row.planned['update']:.1f}, {full:.1f}" in line


def test_what_did_not_fit_is_said_below_and_has_no_plan() -> None:
    run, row = a_run(), Row("m", "a3_128", dies=256, stage=1)
    fill(row, run, [as_planned(run, 1, oom=OOM)])
    assert "update" not in row.planned and "update" in row.counted
    (*_, line, wrong) = table([row]).splitlines()
    assert f"| {row.counted['update']:.1f} |" in line
    assert wrong.startswith("m, a3_128: OUT OF MEMORY: update, stage 1: 3.0 GiB wanted and 1.0 GiB free")


def test_a_pair_without_a_run_file_is_said_and_does_not_end_the_others(tmp_path: Path) -> None:
    said: list[str] = []
    row = rehearse(Wanted(model="kimi_k2", hardware="a2_64", shared="/shared"), tmp_path, said.append)
    assert row.wrong.startswith("kimi_k2 does not fit on up to 64 nodes") and said == ["kimi_k2-a2_64"]
    assert table([row]).splitlines()[-1] == f"kimi_k2, a2_64: {row.wrong}"


def test_what_preflight_refuses_is_not_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [type("Finding", (), {"line": "error (M001): too much"})]
    monkeypatch.setattr(benchmark, "refusals", lambda config: refused)
    row = rehearse(Wanted(model="llama3_1_8b", hardware="a2_64", shared="/shared"), tmp_path, lambda line: None)
    assert row.wrong == "preflight: error (M001): too much" and (tmp_path / "llama3_1_8b-a2_64.toml").is_file()


def test_the_stage_is_that_of_the_fullest_die_in_training() -> None:
    needed = memory(a_run().planned)
    stage = fullest_stage(needed)
    most = {die.stage: max(die.total(phase) for phase in die.phases if phase != "rollout") for die in needed.dies}
    assert most[stage] == max(most.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "wrong"),
    [
        (12, ""),
        # So few layers leave each of them a cache that no NPU takes.
        (2, "stage 0: building: Refused: npu_fused_infer_attention_score: key is of"),
    ],
)
def test_a_small_model_is_rehearsed_whole(tmp_path: Path, layers: int, wrong: str) -> None:
    model = tmp_path / "small"
    model.mkdir()
    fields = tiny_fields("legal") | {"num_hidden_layers": layers}
    (model / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    save_tokenizer(model)
    options = ["--model", str(model), "--hardware", "a2_64", "--max-response-tokens", "512", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "fit.py"), *options, "--json"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == bool(wrong), done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["wrong"].startswith(wrong) and bool(row["wrong"]) == bool(wrong) and row["dies"] == 8
    assert "# python -m recipe plan --fit" in (tmp_path / "small-a2_64.toml").read_text(encoding="utf-8")
    if not wrong:
        assert {"rollout", "switch", "ref", "update"} <= set(row["counted"]) and row["left"] > 0
