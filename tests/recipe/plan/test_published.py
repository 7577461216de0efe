# SPDX-License-Identifier: Apache-2.0
"""The published steps, and the tables of docs/PLAN.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.__main__ import main
from recipe.plan.calibration import fitted
from recipe.plan.comparison import compared, constant_table, memory_table, time_table
from recipe.plan.counts import counts_of
from recipe.plan.memory import memory
from recipe.plan.published import (
    H20_DEEPSEEK,
    H20_MFU,
    QWEN3_DAPO,
    R1_ASCEND,
    RANDOM_INIT,
    ROWS,
    STOCK_DISPATCH,
    UPDATE,
    PublishedStep,
)
from recipe.plan.subject import subject
from recipe.plan.work import setting_of
from recipe.runfile.config import load
from recipe.runfile.schema import HARDWARE

REPO = Path(__file__).resolve().parents[3]
CONFIGS = REPO / "configs"
BIG = sorted(path.stem for path in CONFIGS.glob("*.toml") if not path.stem.startswith("sim"))


@pytest.mark.parametrize("row", [row for row in ROWS if row.tokens_per_second], ids=lambda row: row.name)
def test_the_published_figures_agree_with_one_another(row: PublishedStep) -> None:
    assert row.step_s and row.tokens_per_second
    tokens = row.setting.sequences * row.mean.sequence
    assert tokens / row.step_s / row.devices == pytest.approx(row.tokens_per_second, rel=1e-3)
    if set(row.phases) == set(row.seconds):
        # What docs/PLAN.md says of the random-weight step: its parts are 4.3 s more than the total printed with them.
        off = sum(row.seconds.values()) - row.step_s
        assert off == pytest.approx(4.3 if row is RANDOM_INIT else 0, abs=0.1 if row is RANDOM_INIT else 2)


def test_the_update_on_h20_is_what_its_utilisation_says() -> None:
    counts, mean, sequences = counts_of(H20_DEEPSEEK.model), H20_DEEPSEEK.mean, H20_DEEPSEEK.setting.sequences
    # verl 0.6.1 utils/flops_counter.py, _estimate_deepseek_v3_flops: the embedding is counted, attention is not causal.
    products = 6 * (counts.active_parameters + 129280 * 7168) * sequences * mean.sequence
    attention = 12 * sequences * mean.sequence**2 * 61 * 192 * 128
    peak = 96 * HARDWARE["h20_96"].tflops_bf16 * 1e12
    assert H20_DEEPSEEK.seconds[UPDATE] == pytest.approx((products + attention) / (H20_MFU * peak), abs=1)


def test_the_update_of_the_dapo_step_has_the_throughput_that_is_published_for_it() -> None:
    tokens = QWEN3_DAPO.setting.sequences * QWEN3_DAPO.mean.sequence
    assert tokens / QWEN3_DAPO.seconds[UPDATE] / QWEN3_DAPO.devices == pytest.approx(411.14, rel=1e-3)


def test_without_its_dispatch_the_stock_step_takes_what_the_other_with_random_weights_does() -> None:
    for phase in ("ref", "update"):
        rest = STOCK_DISPATCH.seconds[phase] - STOCK_DISPATCH.dispatch_s[phase]
        assert rest == pytest.approx(RANDOM_INIT.seconds[phase], rel=0.05)


def test_rollout_layouts_are_those_of_the_run_files_modelled_on_them() -> None:
    for row in (row for row in ROWS if row.config):
        ours = setting_of(subject(load(CONFIGS / f"{row.config}.toml")))
        for name in ("dies", "sequences", "engine_tensor", "engine_expert", "engine_sequences", "stages"):
            assert getattr(ours, name) == getattr(row.setting, name), (row.name, name)


@pytest.mark.parametrize("row", [row for row in ROWS if row.config], ids=lambda row: row.config)
def test_what_has_run_on_64_gb_dies_fits_by_the_plan(row: PublishedStep) -> None:
    needed = memory(subject(load(CONFIGS / f"{row.config}.toml")))
    assert needed.limit == int(61.27 * 2**30)
    assert needed.fits, needed.too_full


def test_the_step_of_the_pinned_stack_took_a_third_longer_than_the_fit() -> None:
    took, told, *_ = compared(R1_ASCEND)["step"]
    assert took / told == pytest.approx(1.3, abs=0.05)  # docs/PLAN.md says so


def test_no_step_is_missed_by_more_than_a_factor_of_two_and_a_half() -> None:
    for row in ROWS:
        for phase, (took, _, left_out, source_left_out) in compared(row).items():
            if phase == "reward":
                continue  # a second or two of the host
            for told in (left_out, source_left_out):
                assert 1 / 2.5 < told / took < 2.5, (row.name, phase)


def test_the_documented_tables_are_the_computed_ones() -> None:
    text = (REPO / "docs/PLAN.md").read_text(encoding="utf-8").splitlines()
    for table in (constant_table(), time_table(), memory_table(CONFIGS, BIG)):
        missing = [line for line in table if line not in text]
        assert not missing, "docs/PLAN.md lacks\n" + "\n".join(missing)


def test_the_tables_are_printed_without_a_run_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--published"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [*constant_table(), "", *time_table()]
    assert f"{1e3 * fitted()['engine step']:.1f} ms" in printed[2]


def test_the_tables_are_there_for_other_tools(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--published", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["constants"]["update"]["fitted"] == fitted()["update"]
    for row, step in zip(ROWS, told["steps"], strict=True):
        assert step["step"] == row.name and (step["held_out"] is None) is (not row.held_out)
        for phase, took in row.seconds.items():
            assert step["seconds"][phase]["published"] == took
            assert step["seconds"][phase]["publication_left_out"] == compared(row)[phase][3]
