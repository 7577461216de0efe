# SPDX-License-Identifier: Apache-2.0
"""The problems that a run reads, as far as its checks need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.checks.finding import CannotTell

Messages = list[dict[str, str]]
# Of the prompts of a run, so many are rendered and counted: its longest.
LONGEST = 512
# Of a type as messages show it: nested ones fill pages.
_SHOWN = 100


@dataclass(frozen=True)
class Problems:
    """Prompts as chat messages, and the ground truths."""

    prompts: list[Messages]
    truths: list[Any]


@dataclass(frozen=True)
class Column:
    """What verl 0.6.1's dataset and reward managers make of a column. `right` tells it from its Arrow type."""

    wanted: str
    right: Callable[[Any], bool]
    needed: bool = True


def parquet_faults(file: Path) -> list[str]:
    """What keeps verl from reading `file` as problems, one line each: no Parquet, other columns, rows with holes.

    CannotTell without pyarrow.
    """
    try:
        faults = _column_faults(_parquet(file).schema_arrow)
        return faults or _row_faults(_rows(file))
    except ValueError as error:
        return [str(error)]


def states_problems(file: Path) -> bool:
    """Whether the rows of a Parquet file hold the problem's text where the reward can see it."""
    schema = _parquet(file).schema_arrow
    index = schema.get_field_index("extra_info")  # below 0 where there is none, or more than one
    return index >= 0 and "problem: string" in str(schema.field(index).type)


def read_parquet(file: Path) -> Problems:
    """All rows of a Parquet file in verl's schema. Raises ValueError for any other file."""
    for fault in parquet_faults(file):
        raise ValueError(f"{file}: {fault}")
    return _rows(file)


def read_json(file: Path, template: str) -> Problems:
    """All usable rows of a DeepScaleR-schema file, rendered with a template. Raises DataError."""
    from recipe.data.rows import read_rows
    from recipe.data.templates import get_template
    from recipe.data.truths import KEEP, Truths

    chosen = get_template(template)
    rows = read_rows(file, truths=Truths(policy=KEEP))[0]
    return Problems([chosen.messages(row.problem) for row in rows], [row.truth for row in rows])


def text_of(messages: Messages) -> str:
    """All the text of a prompt."""
    return "\n".join(str(message.get("content", "")) for message in messages)


def longest(prompts: list[Messages], count: int) -> Iterator[Messages]:
    """The `count` longest by characters, which nearly always include the longest in tokens."""
    yield from sorted(prompts, key=lambda prompt: -sum(len(message.get("content", "")) for message in prompt))[:count]


def _column_faults(schema: Any) -> list[str]:
    faults = []
    for name, column in COLUMNS.items():
        places = schema.get_all_field_indices(name)
        if len(places) > 1:
            faults.append(f"{len(places)} columns are called {name}")
        elif not places and column.needed:
            faults.append(f"no column {name} (columns: {', '.join(schema.names)})")
        elif places and not column.right(schema.field(places[0]).type):
            kind = str(schema.field(places[0]).type)
            shown = kind if len(kind) <= _SHOWN else kind[:_SHOWN] + "..."
            faults.append(f"column {name} is {shown}, not {column.wanted}")
    return faults


def _row_faults(rows: Problems) -> list[str]:
    broken = [row for row, prompt in enumerate(rows.prompts) if not _complete(prompt)]
    if not broken:
        return []
    hole = "a null, or no message at all, in the prompt"
    return [f"{len(broken)} of {len(rows.prompts)} rows have {hole}, the first is row {broken[0]} (from 0)"]


def _complete(prompt: Any) -> bool:
    return bool(prompt) and all(
        message is not None and message["role"] is not None and message["content"] is not None for message in prompt
    )


def _text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(
        _text(kind.value_type) if types.is_dictionary(kind) else types.is_string(kind) or types.is_large_string(kind)
    )


def _list(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _member(kind: Any, name: str) -> Any:
    """The type of a struct's member; None where there is none, or several of that name."""
    import pyarrow.types as types

    place = kind.get_field_index(name) if types.is_struct(kind) else -1
    return None if place < 0 else kind.field(place).type


def _messages(kind: Any) -> bool:
    if not _list(kind):
        return False
    members = [_member(kind.value_type, name) for name in ("role", "content")]
    return all(member is not None and _text(member) for member in members)


def _answer(kind: Any) -> bool:
    """What the graders make an answer of: `recipe` rewards know texts, numbers, and lists of either."""
    import pyarrow.types as types

    if _list(kind):
        return not _list(kind.value_type) and _answer(kind.value_type)
    return bool(_text(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _rewarded(kind: Any) -> bool:
    truth = _member(kind, "ground_truth")
    return truth is not None and _answer(truth)


def _extra(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_struct(kind) or types.is_null(kind))


COLUMNS = {
    "prompt": Column("a list of messages, each with role and content as text", _messages),
    "reward_model": Column("a struct with the ground_truth as text, number or list of them", _rewarded),
    "data_source": Column("text", _text),
    # verl puts an empty one where it is missing or null.
    "extra_info": Column("a struct", _extra, needed=False),
}


def _parquet(file: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise CannotTell("the package pyarrow is not installed") from None
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"no Parquet file that can be read: {_first_line(error)}") from None


def _rows(file: Path) -> Problems:
    """The rows of a file whose columns are right."""
    import pyarrow as pa

    try:
        table = _parquet(file).read(columns=["prompt", "reward_model"])
        rewards = table["reward_model"].to_pylist()
        truths = [None if reward is None else reward["ground_truth"] for reward in rewards]
        return Problems(table["prompt"].to_pylist(), truths)
    except (pa.ArrowException, OSError, UnicodeError) as error:  # damaged behind a whole footer
        raise ValueError(f"a Parquet file whose rows cannot be read: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
