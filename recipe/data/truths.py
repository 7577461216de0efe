# SPDX-License-Identifier: Apache-2.0
r"""Takes the answer out of a record's answer field, and tells whether the reward can match it.

Data sets wrap answers in marks, solutions, lists and objects:

==================  ==================================================================================
found               taken
==================  ==================================================================================
``#### 4``          what follows the last ``####``
``\boxed{4}``       the content of the box, when it is the only one and nothing else stands there
a worked solution   the content of its only box, when the text ends with it
a list of one item  the item; of a JSON list or object that is written as a text as well
an object           what stands under the first of ``OBJECT_KEYS`` that it has
a list of several   all of them: any is right
==================  ==================================================================================

Each step is counted by its name, and repeated until nothing is left to take off.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from recipe.data.formats import last_box
from recipe.data.records import DataError
from recipe.reward.truths import can_be_matched, unmatched_kind
from recipe.reward.verifiers import DEFAULT

OBJECT_KEYS = ("answer", "final_answer", "ground_truth", "expected_answer", "target", "label", "value")
#: How often an answer may be wrapped in another.
DEEPEST = 8

HASHES, BOX, SOLUTION, LIST, OBJECT = REDUCED = (
    "'#### ' before the answer", "a box around the answer", "a worked solution that ends with a box",
    "a list of one item", "an object with the answer",
)  # fmt: skip
# Without one of these a text is an answer as it stands.
_MARKS = ("####", "box", '["', '{"')

# What is done with a record whose answer the reward cannot match.
KEEP, DROP = UNREADABLE = ("keep", "drop")
# How many answers that cannot be matched are kept for the report.
EXAMPLES = 20


@dataclass
class Truths:
    """Counts of what was done to answers, and of those that the rule ``verifier`` cannot match.

    ``policy`` says whether those are left out; they are counted in ``unreadable`` by their look, the first few in
    ``examples`` (record, answer). ``reduced``: records by what was taken off around the answer; ``several``: records
    with several accepted answers.
    """

    verifier: str = DEFAULT
    policy: str = DROP
    reduced: Counter[str] = field(default_factory=Counter)
    several: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[int, str]] = field(default_factory=list)

    def matched(self, truth: str | list[str], index: int) -> bool:
        """Whether an answer can match the truth of record ``index``; counted where none can."""
        if can_be_matched(truth, self.verifier):
            return True
        self.unreadable[unmatched_kind(truth)] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((index, truth if isinstance(truth, str) else truth[0]))
        return False


def accepted_answers(value: Any, where: str) -> tuple[list[str], list[str]]:
    """The accepted answers in ``value``, as texts without outer white space and blank ones, and what was taken off.

    ``where`` names the field in errors. Raises ``DataError`` for what cannot be an answer.
    """
    if isinstance(value, str) and not any(mark in value for mark in _MARKS):
        text = _text(value, where)
        return [text] if text else [], []
    wrappings: list[str] = []
    value = _unwrapped(value, where, wrappings)
    items = value if isinstance(value, list) else [value]
    answers: list[str] = []
    for item in items:
        text = _text(_unwrapped(item, where, wrappings) if isinstance(value, list) else item, where)
        for _ in range(DEEPEST):
            bare, how = _bare(text)
            if how is None:
                break
            text = bare
            wrappings.append(how)
        if text and text not in answers:
            answers.append(text)
    return answers, wrappings


def _unwrapped(value: Any, where: str, wrappings: list[str]) -> Any:
    """``value`` without lists of one item and objects around it."""
    for _ in range(DEEPEST):
        if isinstance(value, str):
            inner = _json_in(value)
            if inner is None:
                return value
            value = inner
        if isinstance(value, list) and len(value) == 1:
            value, how = value[0], LIST
        elif isinstance(value, dict):
            key = next((key for key in OBJECT_KEYS if key in value), None)
            if key is None:
                names = ", ".join(map(repr, list(value)[:5])) or "no keys"
                raise DataError(f"{where} is an object without one of {', '.join(OBJECT_KEYS)}; it has {names}")
            value, how = value[key], OBJECT
        else:
            return value
        wrappings.append(how)
    raise DataError(f"{where} is an answer in more than {DEEPEST} lists and objects")


def _json_in(text: str) -> Any:
    """The JSON list or object that ``text`` is, or None; a set ``{1}`` or an interval ``[1, 2]`` is none."""
    stripped = text.strip()
    if not stripped.startswith(('["', '{"')):
        return None
    try:
        value = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list | dict) else None


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where} is no finite number; write it as a text")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        kind = "a list in a list" if isinstance(value, list) else type(value).__name__
        raise DataError(f"{where} must be a text, a number, or a list of these, found {kind}; write it as a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where} has half a surrogate pair at character {error.start}; remove it") from error
    return value.strip()


def _bare(text: str) -> tuple[str, str | None]:
    """``text`` without the mark or solution around its answer, and the name of what was removed; None: it had none."""
    if "####" in text:
        answer = text.rpartition("####")[2].strip()
        return (answer, HASHES) if answer else (text, None)
    if "boxed" not in text and "\\fbox" not in text:
        return text, None
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    content = last_box(text)
    end = text.find(content, start) + len(content)
    if not content or text.count("\\boxed") + text.count("\\fbox") > 1 or text[end:].strip("} \n\t.$*\\)]。"):
        return text, None
    return content, SOLUTION if text[:start].strip(" \n\t$*\\([") else BOX
