# SPDX-License-Identifier: Apache-2.0
"""Finds the parts of a response by their positions: no regular expression runs over text of unbounded length."""

from __future__ import annotations

import re
from functools import lru_cache

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
BOX = "\\boxed{"

#: Longest content of a box, in characters. A longer one is no answer.
LONGEST_ANSWER = 1000

#: A brace, or a backslash with what it escapes; searched for within the longest answer only.
_MARK = re.compile(r"\\.|[{}]", re.DOTALL)


def has_format(response: str) -> bool:
    """Whether the response is ``<think>…</think><answer>…</answer>`` with a closed ``\\boxed{…}`` in the answer.

    Each of the four tags must occur exactly once, with only whitespace before, between and after the two parts.
    """
    text = response.strip()
    if not text.startswith(THINK) or not text.endswith(END_ANSWER):
        return False
    if text.count(THINK) != 1 or text.count(END_THINK) != 1 or text.count(ANSWER) != 1 or text.count(END_ANSWER) != 1:
        return False
    end_think, answer = text.find(END_THINK), text.find(ANSWER)
    return (
        len(THINK) <= end_think < answer
        and not text[end_think + len(END_THINK) : answer].strip()
        and last_box(text[answer + len(ANSWER) : -len(END_ANSWER)]) is not None
    )


def answer_part(response: str) -> str | None:
    """The text between the last ``<answer>`` and the ``</answer>`` after it, or None.

    None as well when a ``</think>`` follows that ``<answer>``: what is written while thinking is no answer.
    """
    start = response.rfind(ANSWER)
    if start < 0 or response.rfind(END_THINK) > start:
        return None
    start += len(ANSWER)
    end = response.find(END_ANSWER, start)
    return None if end < 0 else response[start:end]


@lru_cache(maxsize=2)  # the format and the verdict look into the same answer
def last_box(text: str) -> str | None:
    """The content of the last ``\\boxed{…}``, or None when there is none, it is not closed or it is too long.

    Braces behind a backslash are not counted. A box within a box is the later one, so its content is taken.
    """
    start = text.rfind(BOX)
    if start < 0:
        return None
    start += len(BOX)
    end = min(len(text), start + LONGEST_ANSWER + 1)
    closing = text.find("}", start, end)
    content = text[start:closing]
    if closing < 0 or ("{" not in content and "\\" not in content):
        return None if closing < 0 else content
    depth = 1
    for mark in _MARK.finditer(text, start, end):
        if mark[0] == "{":
            depth += 1
        elif mark[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start : mark.start()]
    return None
