# SPDX-License-Identifier: Apache-2.0
"""Steps as text, in both directions."""

from __future__ import annotations

import pytest

from recipe.mismatch.steps import parse_steps, steps_text


@pytest.mark.parametrize(
    ("text", "steps"), [("13", (13,)), ("10-12", (10, 11, 12)), ("20, 3,2-3", (2, 3, 20)), ("5-5", (5,))]
)
def test_steps_are_read(text: str, steps: tuple[int, ...]) -> None:
    assert parse_steps(text) == steps
    assert parse_steps(steps_text(steps)) == steps


@pytest.mark.parametrize("text", ["", "0", "-1", "3-2", "1-", "1,,2", "x", "1-99999999", "1e3", "9" * 5000])
def test_anything_else_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ValueError, match="names no steps") as caught:
        parse_steps(text)
    assert len(str(caught.value)) < 150


def test_text_of_steps() -> None:
    assert steps_text((10, 12, 11, 20, 3)) == "3,10-12,20" and steps_text(()) == ""
