# SPDX-License-Identifier: Apache-2.0
"""Lengths that are drawn from a histogram, and the file that has it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.rehearse.lengths import Lengths, quantiles, read_lengths
from recipe.runfile.errors import ConfigError
from tests.recipe.rehearse.made_up import a_run

HISTOGRAMS = st.dictionaries(st.integers(1, 5000), st.integers(1, 10**6), min_size=1, max_size=20)


@given(counts=HISTOGRAMS, number=st.integers(1, 300), seed=st.integers())
def test_quantiles_follow_the_counts_whatever_their_order(counts: dict[int, int], number: int, seed: int) -> None:
    lines = list(counts.items())
    drawn = quantiles(lines, number)
    random.Random(seed).shuffle(lines)
    assert quantiles(lines, number) == drawn == sorted(drawn) and len(drawn) == number
    total = sum(counts.values())
    for tokens, count in counts.items():
        # As many as its share, but for the part that begins and the one that ends in it.
        assert abs(drawn.count(tokens) - number * count / total) <= 1
    doubled = {tokens: 2 * count for tokens, count in counts.items()}
    assert quantiles(doubled.items(), number) == drawn


@given(prompts=HISTOGRAMS, responses=HISTOGRAMS, number=st.integers(1, 200))
def test_each_quantile_is_drawn_once(prompts: dict[int, int], responses: dict[int, int], number: int) -> None:
    lengths = Lengths(tuple(prompts.items()), tuple(responses.items()), 5000, 5000)
    drawn = lengths.drawn(number)
    assert sorted(prompt for prompt, _ in drawn) == quantiles(prompts.items(), number)
    assert sorted(response for _, response in drawn) == quantiles(responses.items(), number)
    assert lengths.tokens(number) == [prompt + response for prompt, response in drawn]
    assert lengths.means(number)[0] == pytest.approx(sum(prompt for prompt, _ in drawn) / number)


def test_long_and_short_ones_are_mixed() -> None:
    evenly = tuple((tokens, 1) for tokens in range(1, 65))
    drawn = Lengths(evenly, evenly, 64, 64).drawn(64)
    halves = [[prompt > 32 for prompt, _ in drawn[start : start + 8]].count(True) for start in range(0, 64, 8)]
    assert set(halves) <= {3, 4, 5}
    both_long = sum(prompt > 32 and response > 32 for prompt, response in drawn)
    assert 12 <= both_long <= 20


def write(directory: Path, text: str) -> Path:
    file = directory / "lengths.csv"
    file.write_text(text)
    return file


def test_a_file_has_both_parts_in_any_order(tmp_path: Path) -> None:
    text = "part,tokens,count\nresponse, 30, 2\nprompt,7,1\n\nresponse,4,1\nprompt,7,2\n"
    lengths = read_lengths(write(tmp_path, text), 10, 30)
    assert lengths == Lengths(((7, 3),), ((4, 1), (30, 2)), 10, 30)
    assert lengths.differ and lengths.text == "prompts of 7 and answers of 4 to 30 (21.3 on average) tokens"
    run = a_run(lengths=write(tmp_path, text.replace("30", "3072")))
    assert run.lengths.padded_response == 3072 and run.lengths.responses == ((4, 1), (3072, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line is ''; expected part,tokens,count"),
        ("tokens,count\n1,2\n", "the first line is 'tokens,count'"),
        ("part,tokens,count\n", "no line is about a prompt"),
        ("part,tokens,count\nprompt,1,1\n", "no line is about a response"),
        ("part,tokens,count\nprompt,1,1\nanswer,1,1\n", "line 3: 'answer,1,1'; expected prompt or response"),
        ("part,tokens,count\nprompt,1,1,1\n", "line 2: "),
        ("part,tokens,count\nprompt,11,1\n", "line 2: tokens '11'; expected a whole number, 1 to 10"),
        ("part,tokens,count\nresponse,0,1\n", "tokens '0'; expected a whole number, 1 to 30"),
        ("part,tokens,count\nresponse,2.5,1\n", "tokens '2.5'"),
        ("part,tokens,count\nresponse,5,-1\n", "count '-1'; expected a whole number, 1 or more"),
        ("part,tokens,count\nresponse,5\n", "count ''"),
        ("part,tokens,count\nresponse,5," + "9" * 5000 + "\n", "count '999"),
        ("part,tokens,count\nresponse,\x1b[31m5,1\n", "tokens '5'"),
    ],
)
def test_a_file_that_says_something_else_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_lengths(write(tmp_path, text), 10, 30)
    said = str(caught.value)
    assert message in said and "lengths.csv" in said and "\n" not in said and "\x1b" not in said and len(said) < 300


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "lengths.csv"
    file.write_bytes(b"part,tokens,count\n\xff\xfe")
    for path in (file, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_lengths(path, 10, 30)


def test_a_histogram_is_not_combined_with_single_lengths(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--lengths beside --prompt-tokens"):
        a_run(lengths=write(tmp_path, "part,tokens,count\nprompt,1,1\nresponse,1,1\n"), prompt=5)
