# SPDX-License-Identifier: Apache-2.0
"""The problems that a run reads, as far as its checks need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.preflight.catalogue import CannotTell

Messages = list[dict[str, str]]
# What verl 0.6.1's dataset and reward managers read of each row.
COLUMNS = {"prompt": "list", "reward_model": "struct", "data_source": "string", "extra_info": "struct"}


@dataclass(frozen=True)
class Problems:
    """Prompts as chat messages, and the ground truths."""

    prompts: list[Messages]
    truths: list[Any]


def differing_columns(file: Path) -> list[str]:
    """What `file` lacks of verl's schema, one line each. CannotTell without pyarrow; ValueError for no Parquet."""
    schema = _parquet(file).schema_arrow
    lines = []
    for name, kind in COLUMNS.items():
        there = str(schema.field(name).type) if name in schema.names else None
        if there is None:
            lines.append(f"no column {name} (columns: {', '.join(schema.names)})")
        elif not there.startswith(kind):
            lines.append(f"column {name} is {there}, not a {kind}")
    if not lines and "ground_truth" not in str(schema.field("reward_model").type):
        lines.append("reward_model has no ground_truth")
    return lines


def rows(file: Path) -> int:
    """Rows of a Parquet file."""
    return int(_parquet(file).metadata.num_rows)


def states_problems(file: Path) -> bool:
    """Whether the rows of a Parquet file hold the problem's text where the reward can see it."""
    schema = _parquet(file).schema_arrow
    return "extra_info" in schema.names and "problem: string" in str(schema.field("extra_info").type)


def read_parquet(file: Path) -> Problems:
    """All rows of a Parquet file in verl's schema."""
    table = _parquet(file).read(columns=["prompt", "reward_model"])
    truths = [None if one is None else one.get("ground_truth") for one in table["reward_model"].to_pylist()]
    return Problems(table["prompt"].to_pylist(), truths)


def read_json(file: Path, template: str) -> Problems:
    """All usable rows of a DeepScaleR-schema file, rendered with a template. Raises DataError."""
    from recipe.data.rows import read_rows
    from recipe.data.templates import get_template
    from recipe.data.truths import KEEP, Truths

    chosen = get_template(template)
    found = read_rows(file, truths=Truths(policy=KEEP))[0]
    return Problems([chosen.messages(row.problem) for row in found], [row.truth for row in found])


def text_of(messages: Messages) -> str:
    """All the text of a prompt."""
    return "\n".join(str(message.get("content", "")) for message in messages)


def longest(prompts: list[Messages], count: int) -> Iterator[Messages]:
    """The `count` longest by characters, which nearly always include the longest in tokens."""
    yield from sorted(prompts, key=lambda one: -sum(len(message.get("content", "")) for message in one))[:count]


def _parquet(file: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise CannotTell("the package pyarrow is not installed") from None
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file} is no Parquet file that can be read: {reason}") from None
