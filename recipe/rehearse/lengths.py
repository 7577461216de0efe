# SPDX-License-Identifier: Apache-2.0
"""Lengths of prompts and answers: all as long as they may be or are asked to be, or as in a histogram."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from recipe.runfile.errors import ConfigError
from recipe.text import printable

PROMPT, RESPONSE = "prompt", "response"
COLUMNS = ("part", "tokens", "count")
# Steps that walk through a batch in an order without a pattern; each is made one that misses nobody.
_PROMPT_STEP, _RESPONSE_STEP = 0.6180339887, 0.7548776662
Histogram = tuple[tuple[int, int], ...]


def quantiles(histogram: Iterable[Sequence[int]], number: int) -> list[int]:
    """So many lengths that stand for the histogram: those in the middle of as many parts of equal weight, ascending.

    Args:
        histogram: (tokens, count) in any order; counts are positive.
        number: of lengths.
    """
    ordered = sorted((tokens, count) for tokens, count in histogram)
    ends = list(accumulate(count for _, count in ordered))
    lengths, place = [], 0
    for part in range(number):
        while 2 * number * ends[place] <= (2 * part + 1) * ends[-1]:
            place += 1
        lengths.append(ordered[place][0])
    return lengths


def _order(number: int, step: float) -> list[int]:
    """The numbers below `number`, neighbours far apart."""
    stride = max(1, round(number * step))
    while math.gcd(stride, number) > 1:
        stride += 1
    return [place * stride % number for place in range(number)]


class Spread(NamedTuple):
    """Of a histogram, in tokens."""

    least: int
    mean: float
    most: int

    @classmethod
    def of(cls, histogram: Histogram) -> Spread:
        total = sum(count for _, count in histogram)
        sizes = [tokens for tokens, _ in histogram]
        return cls(min(sizes), sum(tokens * count for tokens, count in histogram) / total, max(sizes))

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.most)
        return f"{self.least} to {self.most} ({self.mean:.1f} on average)"


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts and answers.

    Attributes:
        prompts, responses: (tokens, count); the counts are weights.
        padded_prompt, padded_response: what they are padded to, the run's limits.
    """

    prompts: Histogram
    responses: Histogram
    padded_prompt: int
    padded_response: int

    @classmethod
    def equal(cls, prompt: int, response: int, padded_prompt: int, padded_response: int) -> Lengths:
        """Every prompt and every answer is of one length."""
        return cls(((prompt, 1),), ((response, 1),), padded_prompt, padded_response)

    @classmethod
    def full(cls, prompt: int, response: int) -> Lengths:
        """Nothing is padded."""
        return cls.equal(prompt, response, prompt, response)

    @property
    def differ(self) -> bool:
        return len(self.prompts) > 1 or len(self.responses) > 1

    @property
    def prompts_spread(self) -> Spread:
        return Spread.of(self.prompts)

    @property
    def responses_spread(self) -> Spread:
        return Spread.of(self.responses)

    @property
    def text(self) -> str:
        """As in "prompts of 1024 and answers of 5 to 3072 (1385.0 on average) tokens"."""
        return f"prompts of {self.prompts_spread} and answers of {self.responses_spread} tokens"

    def drawn(self, number: int) -> list[tuple[int, int]]:
        """Prompt and answer of so many sequences, in the order of a batch.

        The same each time: quantiles of both histograms, that neighbours in the batch are no neighbours of, and that a
        long prompt has no long answer for.
        """
        prompts, responses = quantiles(self.prompts, number), quantiles(self.responses, number)
        orders = zip(_order(number, _PROMPT_STEP), _order(number, _RESPONSE_STEP), strict=True)
        return [(prompts[one], responses[other]) for one, other in orders]

    def tokens(self, number: int) -> list[int]:
        """Tokens of each of so many sequences."""
        return [prompt + response for prompt, response in self.drawn(number)]

    def means(self, number: int) -> tuple[float, float]:
        """Of the prompts and of the answers of so many sequences."""
        prompts, responses = zip(*self.drawn(number), strict=True)
        return sum(prompts) / number, sum(responses) / number


def read_lengths(file: Path, padded_prompt: int, padded_response: int) -> Lengths:
    """The lengths in a CSV file with the columns part ("prompt" or "response"), tokens and count.

    Args:
        file: the file.
        padded_prompt, padded_response: the run's limits.

    Raises:
        ConfigError: it cannot be read, or says something else; names the line.
    """
    limits = {PROMPT: padded_prompt, RESPONSE: padded_response}
    found: dict[str, dict[int, int]] = {PROMPT: {}, RESPONSE: {}}
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines, skipinitialspace=True)
            if tuple(rows.fieldnames or ()) != COLUMNS:
                given = printable(",".join(rows.fieldnames or ()))[:80]
                raise ConfigError(f"--lengths {file}: the first line is {given!r}; expected {','.join(COLUMNS)}")
            for row in rows:
                part, tokens, count = (row[name] for name in COLUMNS)
                where = f"--lengths {file}, line {rows.line_num}"
                if part not in limits or None in row:
                    found_there = ",".join(map(str, row.values()))
                    raise ConfigError(
                        f"{where}: {printable(found_there)[:40]!r}; expected {PROMPT} or {RESPONSE},tokens,count"
                    )
                length = _whole(tokens, f"{where}: tokens", limits[part])
                found[part][length] = found[part].get(length, 0) + _whole(count, f"{where}: count", 2**53)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--lengths {file} cannot be read: {error}") from None
    for part, counts in found.items():
        if not counts:
            raise ConfigError(f"--lengths {file}: no line is about a {part}")
    prompts, responses = (tuple(sorted(found[part].items())) for part in (PROMPT, RESPONSE))
    return Lengths(prompts, responses, padded_prompt, padded_response)


def _whole(text: str | None, what: str, most: int) -> int:
    digits = (text or "").strip()
    # No more digits than `most` has: int() would take long over a line of them.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 16 and 1 <= int(digits) <= most):
        limit = f"1 to {most}" if most < 2**53 else "1 or more"
        raise ConfigError(f"{what} {printable(digits)[:40]!r}; expected a whole number, {limit}")
    return int(digits)
