# SPDX-License-Identifier: Apache-2.0
"""The format check and the search for the answer, both by positions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.reward.response import LONGEST_ANSWER, answer_part, has_format, last_box

GOOD = "<think>a</think><answer>\\boxed{1}</answer>"


@pytest.mark.parametrize(
    "response",
    [
        GOOD,
        f"\n {GOOD}\t\n",
        "<think></think>\n\n<answer>so \\boxed{\\frac{1}{2}} it is</answer>",
        "<think>multi\nline < > </answe></think><answer>\\boxed{}</answer>",
        "<think>\\boxed{3}</think><answer>\\boxed{1} or \\boxed{2}</answer>",
    ],
)
def test_format_holds(response: str) -> None:
    assert has_format(response)


@pytest.mark.parametrize(
    "response",
    [
        "",
        "\\boxed{1}",
        "<answer>\\boxed{1}</answer>",
        "<think>a</think>\\boxed{1}",
        "<think>a<answer>\\boxed{1}</answer>",
        "<think>a</think><answer>\\boxed{1}",
        "<think>a</think><answer>1</answer>",
        "<think>a</think><answer>\\boxed{1</answer>",
        f"well: {GOOD}",
        f"{GOOD} indeed",
        f"{GOOD}{GOOD}",
        "<think>a</think> then <answer>\\boxed{1}</answer>",
        "<think><think>a</think></think><answer>\\boxed{1}</answer>",
        "<think>a</think><answer><answer>\\boxed{1}</answer></answer>",
        "<answer>\\boxed{1}</answer><think>a</think>",
        "<think>a<answer>\\boxed{1}</answer></think>",
        "</think><think><answer>\\boxed{1}</answer>",
        "<THINK>a</THINK><ANSWER>\\boxed{1}</ANSWER>",
    ],
)
def test_format_does_not_hold(response: str) -> None:
    assert not has_format(response)


@pytest.mark.parametrize(
    ("response", "part"),
    [
        (GOOD, "\\boxed{1}"),
        ("<answer>1</answer>", "1"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>1</answer><answer>2", None),
        ("<think><answer>1</answer></think>", None),
        ("<answer>1", None),
        ("1</answer>", None),
        ("</answer>1<answer>", None),
    ],
)
def test_answer_part(response: str, part: str | None) -> None:
    assert answer_part(response) == part


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{1}", "1"),
        ("\\boxed{1} \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\boxed{3}}", "3"),
        ("\\boxed{}", ""),
        ("\\boxed{1} \\boxed{2", None),
        ("\\boxed {1}", None),
        ("boxed{1}", None),
        ("\\boxed{" + "x" * LONGEST_ANSWER + "}", "x" * LONGEST_ANSWER),
        ("\\boxed{" + "x" * (LONGEST_ANSWER + 1) + "}", None),
        ("\\boxed{1\\", None),
    ],
)
def test_last_box(text: str, content: str | None) -> None:
    assert last_box(text) == content


PIECES = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "{", "\\", "1", " ", "\n"])
PATTERN = re.compile(r"<think>(.*?)</think>\s*<answer>(.*?)</answer>", re.DOTALL)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_format_agrees_with_the_plain_definition(response: str) -> None:
    match = PATTERN.fullmatch(response.strip())
    expected = (
        match is not None
        and all(response.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
        and last_box(match[2]) is not None
    )
    assert has_format(response) == expected


@given(st.text(), st.text(alphabet="0123456789+-/ ", max_size=20))
def test_what_is_boxed_is_found(thought: str, answer: str) -> None:
    thought = thought.replace("<", "")
    response = f"<think>{thought}</think><answer>\\boxed{{{answer}}}</answer>"
    assert has_format(response)
    part = answer_part(response)
    assert part is not None and last_box(part) == answer
