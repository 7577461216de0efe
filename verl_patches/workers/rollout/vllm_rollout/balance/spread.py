# SPDX-License-Identifier: Apache-2.0
"""Which rows of a batch each engine gets.

verl repeats every prompt n times, one after the other, and gives each engine as many consecutive rows. So an engine has
all samples of few prompts, and the answers to one prompt resemble each other in length: engines with hard prompts run
long after the others.
"""

# NPU-ADAPTATION: the samples of a prompt on different engines

from __future__ import annotations


def engine_rows(rows: int, engines: int, spread: bool) -> list[range]:
    """The rows of each engine, in the order in which it gets them.

    Args:
        rows: of the batch; a multiple of `engines`.
        engines: number of engines.
        spread: whether consecutive rows go to different engines, as cards are dealt. With at least as many engines as
            samples of a prompt, each of its samples then goes to another one.
    """
    each, rest = divmod(rows, engines)
    if rest:
        raise ValueError(f"{rows} rows cannot be dealt to {engines} engines alike")
    return [range(one, rows, engines) if spread else range(one * each, (one + 1) * each) for one in range(engines)]


def dealt_order(rows: int, engines: int) -> list[int]:
    """The order of rows in which engines that get consecutive ones get those that `engine_rows` spreads."""
    return [row for held in engine_rows(rows, engines, spread=True) for row in held]
