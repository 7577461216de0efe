# SPDX-License-Identifier: Apache-2.0
"""The constants of the time model: what they are fitted to, and that what is left out is left out."""

from __future__ import annotations

import dataclasses
import math

import pytest

from recipe.plan.calibration import (
    CONSTANT,
    Range,
    fit,
    fitted,
    misses,
    observations,
    predicted,
    without_row,
    without_source,
)
from recipe.plan.published import FITTED, R1_ASCEND, ROWS, TRUE_WEIGHT, PublishedStep

by_name = pytest.mark.parametrize("row", FITTED, ids=lambda row: row.name)


def slower(row: PublishedStep, times: float) -> PublishedStep:
    return dataclasses.replace(
        row,
        seconds={phase: took * times for phase, took in row.seconds.items()},
        step_s=None if row.step_s is None else row.step_s * times,
    )


def with_(changed: PublishedStep) -> list[PublishedStep]:
    return [changed if row.name == changed.name else row for row in FITTED]


def test_constants_that_made_the_steps_are_found_again() -> None:
    rates = {"engine step": 0.05, "grade": 0.003, "pass": 7.0, "update": 4.0}
    made = [
        dataclasses.replace(row, seconds={phase: predicted(row, rates)[phase] for phase in row.seconds})
        for row in FITTED
    ]
    assert fit(made) == pytest.approx(rates)


def test_no_other_constant_fits_the_logarithms_better() -> None:
    for name, value in fitted().items():
        logs = [math.log(one.value) for one in observations(FITTED) if CONSTANT[one.phase] == name]

        def squares(constant: float, logs: list[float] = logs) -> float:
            return sum((shown - math.log(constant)) ** 2 for shown in logs)

        assert squares(value) < min(squares(value * 1.01), squares(value / 1.01))


@by_name
def test_a_step_s_own_figures_are_not_in_its_prediction(row: PublishedStep) -> None:
    changed = slower(row, 7)
    for left_out in (without_row, without_source):
        assert predicted(changed, left_out(changed, with_(changed))) == predicted(row, left_out(row))
    assert fit(with_(changed)) != fitted()


@by_name
def test_the_figures_of_its_publication_are_not_either_and_all_others_are(row: PublishedStep) -> None:
    for other in FITTED:
        rates = without_source(row, with_(slower(other, 7)))
        assert (rates == without_source(row)) is (other.source == row.source), other.name


def test_a_step_that_is_held_out_is_in_no_fit() -> None:
    held_out = [row for row in ROWS if row.held_out]
    assert held_out and not [row for row in held_out if row in FITTED]
    assert {one.row.name for one in observations(FITTED)} == {row.name for row in FITTED}


def test_dispatch_that_is_known_is_added_to_the_prediction_and_taken_from_what_is_fitted() -> None:
    dispatched = dataclasses.replace(TRUE_WEIGHT, dispatch_s={"ref": 50.0})
    assert predicted(dispatched, fitted())["ref"] == pytest.approx(predicted(TRUE_WEIGHT, fitted())["ref"] + 50)
    assert fit(with_(dispatched))["pass"] < fitted()["pass"]


@by_name
def test_the_range_covers_every_published_phase_when_its_publication_is_left_out(row: PublishedStep) -> None:
    told = predicted(row, without_source(row))
    for phase, took in row.seconds.items():
        low, high = misses()[CONSTANT[phase]]
        assert low - 1e-9 <= took / told[phase] <= high + 1e-9
        assert low <= 1 <= high


def test_ranges_add_end_to_end() -> None:
    assert Range(2, 1, 4) + Range(3, 2, 5) == Range(5, 3, 9)


def test_phases_that_a_step_did_not_have_are_not_in_its_whole() -> None:
    assert "log_prob" in predicted(R1_ASCEND, fitted())
    assert "log_prob" not in predicted(TRUE_WEIGHT, fitted())
