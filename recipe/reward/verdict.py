# SPDX-License-Identifier: Apache-2.0
"""What grading one answer can come to."""

from __future__ import annotations

from enum import Enum


class Verdict(str, Enum):
    """The outcome of grading one answer. Only ``CORRECT`` earns anything."""

    CORRECT = "correct"
    #: Both sides were read, and they differ.
    WRONG = "wrong"
    #: It has the right value, and hands in work of the problem undone.
    COPIED = "copied"
    #: The response holds no answer where it belongs.
    NO_ANSWER = "no_answer"
    #: The texts differ, and one of the two is outside the grammar or above its budget.
    UNPARSEABLE = "unparseable"
    #: Grading was ended at its deadline.
    TIMEOUT = "timeout"
    #: The sample cannot be graded: no ground truth, a response that is no text, or the grading process died.
    ERROR = "error"
