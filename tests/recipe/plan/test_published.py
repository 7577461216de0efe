# SPDX-License-Identifier: Apache-2.0
"""The plan beside the published steps, and the tables of docs/PLAN.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.plan.comparison import memory_table, phases, planned, time_table
from recipe.plan.duration import calibrated
from recipe.plan.memory import memory
from recipe.plan.published import NPUS, R1_ASCEND, RANDOM_INIT, ROWS, TRUE_WEIGHT, PublishedStep

REPO = Path(__file__).resolve().parents[3]
CONFIGS = REPO / "configs"
BIG = sorted(path.stem for path in CONFIGS.glob("*.toml") if not path.stem.startswith("sim"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_the_published_figures_agree_with_one_another(row: PublishedStep) -> None:
    tokens = row.sequences * (row.prompt + row.response)
    assert tokens / row.step / NPUS == pytest.approx(row.tokens_per_second_per_npu, rel=1e-3)
    parts = row.generation + row.switches + row.reward + row.log_prob + row.ref + row.update
    # What docs/PLAN.md says of the random-weight step: its parts are 4.3 s more than the total printed with them.
    assert parts - row.step == pytest.approx(4.3 if row is RANDOM_INIT else 0, abs=0.1 if row is RANDOM_INIT else 1.2)


def test_the_step_that_the_constants_come_from_is_met() -> None:
    seconds = phases(R1_ASCEND, planned(R1_ASCEND, CONFIGS))
    for name in ("generation and switches", "reward", "update", "step"):
        published, estimated = seconds[name]
        assert estimated == pytest.approx(published, rel=0.005), name
    # One rate for both passes without gradients, which took 105.5 and 92.7 s for the same work.
    assert seconds["log_prob"][1] + seconds["ref"][1] == pytest.approx(105.5 + 92.7, rel=0.005)


def test_the_update_of_another_published_step_is_predicted() -> None:
    published, estimated = phases(TRUE_WEIGHT, planned(TRUE_WEIGHT, CONFIGS))["update"]
    assert estimated == pytest.approx(published, rel=0.1)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_what_has_run_on_64_gb_dies_fits_by_the_plan(row: PublishedStep) -> None:
    needed = memory(planned(row, CONFIGS))
    assert needed.limit == int(61.27 * 2**30)
    assert needed.fits, needed.too_full


def test_the_documented_tables_are_the_computed_ones() -> None:
    text = (REPO / "docs/PLAN.md").read_text(encoding="utf-8").splitlines()
    for table in (time_table(CONFIGS), memory_table(CONFIGS, BIG)):
        missing = [line for line in table if line not in text]
        assert not missing, "docs/PLAN.md lacks\n" + "\n".join(missing)
    rates = calibrated()
    constants = (
        f"c₁ = {rates.engine_step_s * 1e3:.0f} ms, r₁ = {rates.forward_flops / 1e12:.1f} and "
        f"r₂ = {rates.update_flops / 1e12:.1f} TFLOPS a die, c₂ = {rates.reward_s_per_answer * 1e3:.1f} ms"
    )
    assert constants in "\n".join(text)
