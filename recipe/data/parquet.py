# SPDX-License-Identifier: Apache-2.0
"""A file of problems to ``train.parquet`` and ``test.parquet``: read, measure, shuffle, split, write."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.data.formats import FORMATS, Format
from recipe.data.rows import DataError, Dropped, Row, problem_key, read_rows
from recipe.data.templates import Template
from recipe.data.tokens import PromptTokens
from recipe.data.truths import DROP, Truths
from recipe.data.write import TEST, TRAIN, write_splits
from recipe.reward.verifiers import DEFAULT

# Takes the name of the present step and the number of records done.
ReportRows = Callable[[str, int], None]


@dataclass(frozen=True)
class Conversion:
    """What was converted: the rows of each split, those left out, what was done to answers, and where the files are
    (or would be).

    ``tokens`` has the length of each prompt, those of ``train_rows`` first; None without a tokenizer.
    """

    read: int
    dropped: Dropped
    truths: Truths
    train_rows: Sequence[Row]
    test_rows: Sequence[Row]
    tokens: Sequence[int] | None
    train_path: Path
    test_path: Path

    @property
    def train(self) -> int:
        return len(self.train_rows)

    @property
    def test(self) -> int:
        return len(self.test_rows)


def split_rows(
    rows: Sequence[Row], train_data_ratio: float, seed: int, test_size: int | None = None
) -> tuple[list[Row], list[Row]]:
    """Shuffled train and test rows; the same seed gives the same split. Neither side is ever empty.

    ``test_size``: rows of the test split; None takes what ``train_data_ratio`` leaves. Raises ``DataError`` for a
    ratio outside (0, 1), a test split that leaves nothing to train on, or fewer than two rows.
    """
    if not 0 < train_data_ratio < 1:
        raise DataError(f"train_data_ratio must be between 0 and 1, found {train_data_ratio}")
    if len(rows) < 2:
        raise DataError(f"{len(rows)} usable rows; a split into train and test needs at least 2")
    if test_size is not None and not 1 <= test_size < len(rows):
        raise DataError(
            f"test size must be from 1 to {len(rows) - 1}, as {len(rows)} rows are usable; found {test_size}"
        )
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    cut = len(rows) - test_size if test_size is not None else int(len(rows) * train_data_ratio)
    cut = min(max(cut, 1), len(rows) - 1)
    return shuffled[:cut], shuffled[cut:]


def convert(
    json_path: Path,
    output_dir: Path,
    template: Template,
    *,
    form: Format = FORMATS["deepscaler"],
    train_data_ratio: float = 0.9,
    test_size: int | None = None,
    seed: int = 42,
    test_json_path: Path | None = None,
    data_source: str | None = None,
    ability: str = "math",
    tokens: PromptTokens | None = None,
    max_prompt_tokens: int | None = None,
    verifier: str = DEFAULT,
    unreadable: str = DROP,
    dry_run: bool = False,
    progress: ReportRows | None = None,
) -> Conversion:
    """Converts a file; ``recipe.data.write`` describes the columns.

    With ``test_json_path`` the test split is that file, in its own order, and ratio and test size are not used; a
    problem of it that is also in ``json_path`` is an error. ``max_prompt_tokens`` needs ``tokens``: longer prompts are
    left out and counted. ``unreadable`` says whether problems whose answer the rule ``verifier`` cannot match are
    dropped or kept. A dry run does everything but write. Nothing is written when anything is wrong (``DataError``).
    """

    def counter(what: str) -> Callable[[int], None] | None:
        return None if progress is None else lambda done: progress(what, done)

    lengths: dict[str, int] = {}
    truths = Truths(verifier, unreadable)

    def usable(path: Path) -> tuple[list[Row], Dropped]:
        rows, dropped = read_rows(path, form, counter(f"reading {path.name}"), truths)
        if tokens is not None:
            measured = tokens.lengths(template, rows, counter("counting tokens"))
            kept = []
            for row, length in zip(rows, measured, strict=True):
                if max_prompt_tokens is not None and length > max_prompt_tokens:
                    dropped.add("too_long", row.index)
                else:
                    lengths[row.problem] = length
                    kept.append(row)
            rows = kept
        if not rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.counts.items() if count)
            hint = "; --unreadable keep keeps answers that the reward cannot match" if dropped.unreadable else ""
            raise DataError(
                f"{path}: no usable rows among {dropped.total} records" + (f": {reasons}" if reasons else "") + hint
            )
        return rows, dropped

    for path in filter(None, (json_path, test_json_path)):
        if path.resolve() in {(output_dir / name).resolve() for name in (TRAIN, TEST)}:
            raise DataError(f"{path} would be overwritten; give another output directory")
    rows, dropped = usable(json_path)
    read = len(rows) + dropped.total
    if test_json_path is None:
        train, test = split_rows(rows, train_data_ratio, seed, test_size)
    else:
        test, test_dropped = usable(test_json_path)
        read += len(test) + test_dropped.total
        dropped += test_dropped
        train = list(rows)
        random.Random(seed).shuffle(train)
        trained = {problem_key(row.problem) for row in train}
        shared = [row.problem for row in test if problem_key(row.problem) in trained]
        if shared:
            example = min(shared)[:60]
            raise DataError(f"{test_json_path}: {len(shared)} problems are also in {json_path}, such as {example!r}")
    if not dry_run:
        write_splits(output_dir, train, test, template, data_source or form.source, ability)
    measured = [lengths[row.problem] for row in (*train, *test)] if tokens is not None else None
    return Conversion(read, dropped, truths, train, test, measured, output_dir / TRAIN, output_dir / TEST)
