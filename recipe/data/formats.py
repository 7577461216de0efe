# SPDX-License-Identifier: Apache-2.0
"""Where known data sets keep problem, answer and solution, and how each is taken out of a record.

A path is a key of the record, or keys with dots between for nested objects and places of lists
(``reward_model.ground_truth``, ``prompt.0.content``); a key that has the dots in its name is found too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recipe.data.records import DataError

# Fields for which a path can be given. ``query`` is a second part of the problem, as in the Alpaca schema; ``system``
# is a system message of the record's own, which goes before the template's.
FIELDS = ("prompt", "query", "answer", "solution", "system")
ALIASES = {"problem": "prompt", "response": "answer"}
OPTIONAL = ("query", "solution", "system")
MISSING = object()


@dataclass(frozen=True)
class Format:
    """A schema. ``source`` is the default of the data_source column: the name that verl's own rewards know it by.

    ``problem_of`` and ``answer_of`` turn the value at the path into the problem and the answer; ``answer_of`` gives ""
    when there is none. ``solution_of`` does the same for the solution.
    """

    name: str
    source: str
    paths: Mapping[str, str]
    rule: str
    problem_of: Callable[[Any], Any] = field(default=lambda value: value)
    answer_of: Callable[[str], str] = field(default=lambda text: text)
    solution_of: Callable[[str], str] = field(default=lambda text: text)

    def with_keys(self, keys: Mapping[str, str]) -> Format:
        """This format with other paths."""
        return replace(self, paths={**self.paths, **keys})

    @property
    def columns(self) -> set[str]:
        """The top-level keys that the paths may begin with."""
        return {name for path in self.paths.values() if path for name in (path, path.split(".")[0])}


def parse_map_keys(text: str) -> dict[str, str]:
    """``{"prompt": "question", ...}`` as paths by field; an empty path switches an optional field off.

    Raises ``DataError``.
    """
    known = f"expected a JSON object of {', '.join(FIELDS)} and the key of each"
    try:
        mapping = json.loads(text)
    except ValueError as error:
        raise DataError(f"--map-keys: {known}; not valid JSON: {error}") from error
    if not isinstance(mapping, dict):
        raise DataError(f"--map-keys: {known}; found {json.dumps(mapping)[:40]}")
    keys = {}
    for name, path in mapping.items():
        role = ALIASES.get(name, name)
        if role not in FIELDS:
            raise DataError(f"--map-keys: unknown field {name!r}; {known}")
        if role in keys:
            raise DataError(f"--map-keys: {name!r} and another name stand for the same field, {role!r}")
        if not isinstance(path, str) or (not path and role not in OPTIONAL):
            raise DataError(f"--map-keys: {name!r} must be the name of a key, found {json.dumps(path)[:40]}")
        keys[role] = path
    return keys


def find(record: Mapping[str, Any], path: str) -> Any:
    """The value at ``path``, or ``MISSING``."""
    if path in record:
        return record[path]
    value: Any = record
    for key in path.split("."):
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return MISSING
    return value


def after_hashes(text: str) -> str:
    """The answer of a GSM8K solution: what follows the last ``####``, without thousands commas; "" without one."""
    _, mark, answer = text.rpartition("####")
    return answer.strip().replace(",", "") if mark else ""


def before_hashes(text: str) -> str:
    """A GSM8K solution without its answer line."""
    before, mark, _ = text.rpartition("####")
    return before.rstrip() if mark else text


def last_box(text: str) -> str:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}`` of a solution (or after ``\boxed ``); "" without one.

    Linear in the length of the text.
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return ""
    rest = text[start:].removeprefix("\\boxed").removeprefix("\\fbox")
    if not rest.startswith("{"):
        # "\boxed 5$": the MATH data set has some of these.
        return rest.split("$")[0].strip() if rest.startswith(" ") else ""
    depth, escaped = 0, False
    for place, character in enumerate(rest):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return rest[1:place].strip()
    return ""


def last_user_message(value: Any) -> Any:
    """The text of the last user message when ``value`` is a list of chat messages, or ``value`` itself."""
    if not isinstance(value, list):
        return value
    texts = [message.get("content") for message in value if isinstance(message, dict) and message.get("role") == "user"]
    return texts[-1] if texts else value


def without_answer_instructions(value: Any) -> Any:
    """A DAPO-Math-17k prompt without the first and the last paragraph, when those ask for an "Answer:" line.

    The run's template says how to answer; with these paragraphs a prompt would have two different instructions.
    """
    text = last_user_message(value)
    if not isinstance(text, str):
        return text
    first, gap, rest = text.partition("\n\n")
    middle, other_gap, last = rest.rpartition("\n\n")
    return middle if gap and other_gap and "Answer:" in first and "Answer:" in last else text


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format(
            "deepscaler",
            "deepscaler",
            {"prompt": "problem", "answer": "answer", "solution": "solution"},
            "problem, answer, solution",
        ),
        Format(
            "gsm8k",
            "openai/gsm8k",
            {"prompt": "question", "answer": "answer", "solution": "answer"},
            "question, answer; the answer is what follows the last '####', without thousands commas",
            answer_of=after_hashes,
            solution_of=before_hashes,
        ),
        Format(
            "math_lighteval",
            "lighteval/MATH",
            {"prompt": "problem", "answer": "solution", "solution": "solution"},
            "problem, solution; the answer is in the last \\boxed{} of the solution",
            answer_of=last_box,
        ),
        Format(
            "dapo17k",
            "math_dapo",
            {"prompt": "prompt", "answer": "reward_model.ground_truth", "solution": ""},
            "prompt (text or chat messages), reward_model.ground_truth; the 'Answer:' instructions are taken off",
            problem_of=without_answer_instructions,
        ),
        Format(
            "alpaca",
            "alpaca",
            {"prompt": "instruction", "query": "input", "answer": "output", "solution": ""},
            "instruction, input (put below the instruction), output as the answer",
        ),
    )
}


def get_format(name: str, keys: Mapping[str, str] | None = None) -> Format:
    """The format called ``name`` with the paths of ``keys``; ``DataError`` lists the known names."""
    if name not in FORMATS:
        raise DataError(f"unknown format {name!r}; known are {', '.join(FORMATS)}")
    return FORMATS[name].with_keys(keys or {})
