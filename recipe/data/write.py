# SPDX-License-Identifier: Apache-2.0
"""Rows as ``train.parquet`` and ``test.parquet`` in verl's schema, written whole or not at all.

Columns (what ``verl.utils.dataset.rl_dataset.RLHFDataset`` and the reward managers read):
``data_source`` text; ``prompt`` list of {role, content}; ``ability`` text; ``reward_model`` {style, ground_truth};
``extra_info`` {index, split, answer, problem}, where index is the record's place in the source file, answer its
solution, and problem the text that no work may be copied from. ``ground_truth`` is a text, or, when any row of the two
files has several accepted answers, a list of texts in every row.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipe.data.rows import DataError, Row
from recipe.data.templates import Template

# Rows of a row group: as many are held as Arrow arrays at a time.
GROUP, GROUP_CHARACTERS = 4096, 32 << 20
TRAIN, TEST = "train.parquet", "test.parquet"


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Lock the directory, and remove what a killed conversion left in it. ``DataError`` when it is locked already."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(f"{directory}: another conversion is writing there; wait for it, or give another") from None
    except OSError:
        # A file system without locks: a leftover cannot be told from a file that another process is writing.
        pass
    else:
        for name in (TRAIN, TEST):
            for leftover in directory.glob(f".{name}.*.tmp"):
                leftover.unlink(missing_ok=True)
    try:
        yield
    finally:
        os.close(handle)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_splits(
    output_dir: Path, train: Sequence[Row], test: Sequence[Row], template: Template, data_source: str, ability: str
) -> None:
    """Writes both files into ``output_dir``, which is made if need be.

    Whenever the process ends, each of the two is as before, whole, or absent, and the two are never of different
    conversions: the old pair stays until the new one is whole. Raises ``DataError`` and ``OSError``.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    several = any(row.alternatives for row in (*train, *test))
    parts = ((output_dir / TRAIN, "train", train), (output_dir / TEST, "test", test))
    with _alone(output_dir):
        try:
            for path, split, rows in parts:
                _write(_temporary(path), rows, split, template, data_source, ability, several)
            # An old test file beside the new training file could hold problems that are trained on.
            (output_dir / TEST).unlink(missing_ok=True)
            for path, _, _ in parts:
                os.replace(_temporary(path), path)
        except BaseException:
            for path, _, _ in parts:
                _temporary(path).unlink(missing_ok=True)
            raise


def _write(
    path: Path, rows: Sequence[Row], split: str, template: Template, data_source: str, ability: str, several: bool
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(several)
    with open(path, "wb") as file:
        with pq.ParquetWriter(file, schema) as writer:
            for group in _groups(rows):
                arrays = _arrays(group, split, template, data_source, ability, schema)
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def _groups(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = size = 0
    for place, row in enumerate(rows):
        size += len(row.problem) + len(row.answer) + len(row.solution) + len(row.system)
        if place + 1 - start == GROUP or size > GROUP_CHARACTERS:
            yield rows[start : place + 1]
            start, size = place + 1, 0
    if start < len(rows):
        yield rows[start:]


def _schema(several: bool) -> Any:
    """The columns; ``several``: ground truths are lists of accepted answers."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", pa.list_(text) if several else text)])),
            ("extra_info", pa.struct([("index", pa.int64()), ("split", text), ("answer", text), ("problem", text)])),
        ]
    )


def _arrays(
    rows: Sequence[Row], split: str, template: Template, data_source: str, ability: str, schema: Any
) -> list[Any]:
    """The columns of a row group."""
    import pyarrow as pa

    messages = [template.messages(row.problem, row.system) for row in rows]
    flat = [message for conversation in messages for message in conversation]
    prompt = pa.ListArray.from_arrays(
        _integers([0, *itertools.accumulate(map(len, messages))], pa.int32()),
        _struct(
            schema.field("prompt").type.value_type,
            [_texts([message["role"] for message in flat]), _texts([message["content"] for message in flat])],
        ),
    )
    count = len(rows)
    reward_model = schema.field("reward_model").type
    if reward_model.field("ground_truth").type == pa.string():
        truths = _texts([row.answer for row in rows])
    else:
        accepted = [[row.answer, *row.alternatives] for row in rows]
        truths = pa.ListArray.from_arrays(
            _integers([0, *itertools.accumulate(map(len, accepted))], pa.int32()),
            _texts([answer for answers in accepted for answer in answers]),
        ).cast(reward_model.field("ground_truth").type)
    return [
        _texts([data_source] * count),
        prompt.cast(schema.field("prompt").type),
        _texts([ability] * count),
        _struct(reward_model, [_texts(["rule"] * count), truths]),
        _struct(
            schema.field("extra_info").type,
            [
                _integers([row.index for row in rows], pa.int64()),
                _texts([split] * count),
                _texts([row.solution for row in rows]),
                _texts([row.problem for row in rows]),
            ],
        ),
    ]


# Made from buffers, as pyarrow.array and pyarrow.scalar import all of pandas to ask whether a value is one of its own.


def _texts(texts: list[str]) -> Any:
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    offsets = _integers([0, *itertools.accumulate(map(len, encoded))], pa.int32())
    return pa.StringArray.from_buffers(len(texts), offsets.buffers()[1], pa.py_buffer(b"".join(encoded)))


def _integers(values: list[int], kind: Any) -> Any:
    import pyarrow as pa

    code = {32: "i", 64: "q"}[kind.bit_width]
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array.array(code, values))])


def _struct(kind: Any, columns: list[Any]) -> Any:
    import pyarrow as pa

    return pa.StructArray.from_arrays(columns, fields=list(kind))
