# SPDX-License-Identifier: Apache-2.0
"""What there was at the fullest moment between two readings."""

from __future__ import annotations

from recipe.rehearse.contents import REST, at_peak


def test_what_is_moved_in_or_out_was_there_and_the_rest_has_no_name() -> None:
    before, after = {"weights": 10, "optimizer": 5}, {"optimizer": 5, "gradients": 20}
    found = at_peak(before, after, peak=100)
    assert found == {REST: 65, "gradients": 20, "weights": 10, "optimizer": 5}
    assert list(found) == [REST, "gradients", "weights", "optimizer"]


def test_nothing_is_less_than_nothing() -> None:
    assert at_peak({"weights": 10}, {"weights": 10}, peak=10) == {"weights": 10}
    assert at_peak({}, {}, peak=0) == {}
