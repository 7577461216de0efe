# SPDX-License-Identifier: Apache-2.0
"""The verdicts on one answer."""

from __future__ import annotations

from enum import Enum


class Verdict(str, Enum):
    """The outcome of grading one answer. Only ``CORRECT`` earns anything."""

    CORRECT = "correct"
    #: Both sides were read, and they differ.
    WRONG = "wrong"
    #: It has the right value, but is work of the problem that was left undone.
    COPIED = "copied"
    #: The response holds no answer where it belongs.
    NO_ANSWER = "no_answer"
    #: The texts differ, and one of the two is outside the grammar or above its budget.
    UNPARSEABLE = "unparseable"
    #: Grading was ended at its deadline.
    TIMEOUT = "timeout"
    #: The sample cannot be graded: no ground truth, a response that is no text, or the grading process died.
    ERROR = "error"
