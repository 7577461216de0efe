# SPDX-License-Identifier: Apache-2.0
"""Seeded shuffle and split of problems, written as ``train.parquet`` and ``test.parquet`` in verl's schema.

Columns (what ``verl.utils.dataset.rl_dataset.RLHFDataset`` and the reward managers read):
``data_source`` text; ``prompt`` list of {role, content}; ``ability`` text; ``reward_model`` {style, ground_truth};
``extra_info`` {index, split, answer}, where index is the record's place in the source file and answer its solution.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.data.rows import DataError, Dropped, Row, read_rows
from recipe.data.templates import Template


@dataclass(frozen=True)
class Summary:
    """What a conversion wrote: rows per split, rows left out by reason, and the paths."""

    train: int
    test: int
    dropped: Dropped
    train_path: Path
    test_path: Path


def split_rows(rows: Sequence[Row], train_data_ratio: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Shuffled train and test rows; the same seed gives the same split. Neither side is ever empty.

    Raises ``DataError`` for a ratio outside (0, 1) or fewer than two rows.
    """
    if not 0 < train_data_ratio < 1:
        raise DataError(f"train_data_ratio must be between 0 and 1, found {train_data_ratio}")
    if len(rows) < 2:
        raise DataError(f"{len(rows)} usable rows; a split into train and test needs at least 2")
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    cut = min(max(int(len(rows) * train_data_ratio), 1), len(rows) - 1)
    return shuffled[:cut], shuffled[cut:]


def convert(
    json_path: Path,
    output_dir: Path,
    template: Template,
    *,
    train_data_ratio: float = 0.9,
    seed: int = 42,
    test_json_path: Path | None = None,
    data_source: str = "deepscaler",
    ability: str = "math",
) -> Summary:
    """Converts a JSON file; see the module's text for the columns.

    With ``test_json_path`` the test split is that file, in its own order, and the ratio is not used; a problem of it
    that is also in ``json_path`` is an error. Nothing is written when anything is wrong (``DataError``); each file
    appears whole, under its name, or not at all.
    """
    rows, dropped = read_rows(json_path)
    if test_json_path is None:
        train, test = split_rows(rows, train_data_ratio, seed)
    else:
        test, test_dropped = read_rows(test_json_path)
        dropped = _sum(dropped, test_dropped)
        train = list(rows)
        random.Random(seed).shuffle(train)
        if not train or not test:
            raise DataError(f"{json_path if not train else test_json_path}: no usable rows")
        both = {row.problem for row in train} & {row.problem for row in test}
        if both:
            example = min(both)[:60]
            raise DataError(f"{test_json_path}: {len(both)} problems are also in {json_path}, such as {example!r}")
    train_path, test_path = output_dir / "train.parquet", output_dir / "test.parquet"
    output_dir.mkdir(parents=True, exist_ok=True)
    for path, split, part in ((train_path, "train", train), (test_path, "test", test)):
        write_parquet(path, part, split, template, data_source, ability)
    return Summary(len(train), len(test), dropped, train_path, test_path)


def write_parquet(
    path: Path, rows: Sequence[Row], split: str, template: Template, data_source: str, ability: str
) -> None:
    """Writes rows to ``path`` through a temporary file in the same directory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("index", pa.int64()), ("split", text), ("answer", text)])),
        ]
    )
    table = pa.Table.from_pylist(
        [
            {
                "data_source": data_source,
                "prompt": template.messages(row.problem),
                "ability": ability,
                "reward_model": {"style": "rule", "ground_truth": row.answer},
                "extra_info": {"index": row.index, "split": split, "answer": row.solution},
            }
            for row in rows
        ],
        schema=schema,
    )
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        pq.write_table(table, temporary)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sum(a: Dropped, b: Dropped) -> Dropped:
    return Dropped(
        a.empty_problem + b.empty_problem, a.empty_answer + b.empty_answer, a.duplicate_problem + b.duplicate_problem
    )
