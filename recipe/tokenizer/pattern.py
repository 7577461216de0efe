# SPDX-License-Identifier: Apache-2.0
"""The pattern that cuts a text into pieces before bytes are paired, read from a tokenizer's Python file as text.

Nothing of the file is run or imported. What is read are literals: `pat_str`, one string or "|".join([strings]), and
the number `num_reserved_special_tokens`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.weights.errors import WeightsError

FILES = "tokenization_*.py"
PATTERN, RESERVED = "pat_str", "num_reserved_special_tokens"
_INSTEAD = "read the file, and give the pattern with --pattern-file"
_LARGE = 2**20  # bytes; the published files have 12,000


@dataclass(frozen=True)
class Literals:
    """What a tokenizer's Python file says: its pattern, and how many ids behind the ranks are special tokens (None
    where it does not say)."""

    pattern: str
    reserved: int | None


def read_literals(directory: Path) -> Literals:
    """What the one `tokenization_*.py` with a `pat_str` says.

    Raises:
        WeightsError: there is none or more than one, it is not Python, or what it says is not a literal.
    """
    found = {file: assigned for file in sorted(directory.glob(FILES)) if PATTERN in (assigned := _assigned(file))}
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise WeightsError(f"{directory}: {names} of {FILES} with a {PATTERN}; expected one; {_INSTEAD}")
    ((file, assigned),) = found.items()
    reserved = assigned.get(RESERVED)
    return Literals(_pattern(assigned[PATTERN], file), None if reserved is None else _number(reserved, file))


def read_pattern_file(file: Path) -> str:
    """The pattern in a file of one line. WeightsError where it cannot be read, or has none or several lines."""
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file}: cannot be read ({error})") from None
    pattern, *rest = (line.removesuffix("\r") for line in lines)
    if not pattern or any(rest):
        raise WeightsError(f"{file}: {len(lines)} lines; expected one, the pattern and nothing else")
    return pattern


def _assigned(file: Path) -> dict[str, list[ast.expr]]:
    """What is assigned to the two names, anywhere in the file."""
    try:
        content = file.read_bytes()
        if len(content) > _LARGE:
            raise WeightsError(f"{file}: {len(content)} bytes, more than a tokenizer's Python file has; {_INSTEAD}")
        tree = ast.parse(content)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise WeightsError(f"{file}: is not Python that can be read ({error}); {_INSTEAD}") from None
    values: dict[str, list[ast.expr]] = {}
    for name, value in _assignments(tree):
        if name in (PATTERN, RESERVED):
            values.setdefault(name, []).append(value)
    return values


def _assignments(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            targets, value = [node.target], node.value
        elif isinstance(node, ast.AugAssign):
            targets, value = [node.target], node.target  # which is no literal: what is added to is not known here
        else:
            continue
        for target in targets:
            if isinstance(target, (ast.Name, ast.Attribute)):
                yield target.id if isinstance(target, ast.Name) else target.attr, value


def _pattern(values: list[ast.expr], file: Path) -> str:
    parts = [_strings(value) for value in values]
    known = {pattern for pattern in parts if pattern is not None}
    if len(known) != 1 or None in parts:
        raise WeightsError(
            f'{file}: {PATTERN} is not one string, nor "|".join([...]) of strings (line {_line(values)}), and nothing '
            f"of the file is run; {_INSTEAD}"
        )
    return known.pop()


def _strings(value: ast.expr) -> str | None:
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str(between)), attr="join"),
            args=[ast.List(elts=parts) | ast.Tuple(elts=parts)],
            keywords=[],
        ):
            texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            return between.join(texts) if len(texts) == len(parts) else None
    return None


def _number(values: list[ast.expr], file: Path) -> int:
    numbers = {value.value if isinstance(value, ast.Constant) else None for value in values}
    number = numbers.pop()
    if numbers or type(number) is not int or number < 0:
        raise WeightsError(f"{file}: {RESERVED} is not one number (line {_line(values)}); {_INSTEAD}")
    return number


def _line(values: list[ast.expr]) -> int:
    return max(getattr(value, "lineno", 0) for value in values)
