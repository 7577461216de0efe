# SPDX-License-Identifier: Apache-2.0
"""Generators go on from what was written; what is no state is refused in one line."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_patches.random_states import (
    UNUSABLE,
    RandomStatesError,
    derived_seed,
    host_states,
    read_states,
    set_host_states,
    write_states,
)
from verl_patches.workers.rollout.vllm_rollout.kv_cache import preserved_random_states


@pytest.fixture(autouse=True)
def same_generators() -> object:
    with preserved_random_states():
        yield


def draws() -> list[float]:
    """Numbers from every generator; the normal ones leave a second value in store."""
    return [
        *(random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(np.random.rand())),
        *torch.rand(3).tolist(),
    ]


@given(seed=st.integers(0, 2**31), before=st.integers(0, 3))
def test_what_is_drawn_after_loading_is_what_was_drawn_after_saving(
    tmp_path_factory: pytest.TempPathFactory, seed: int, before: int
) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    for _ in range(before):
        draws()
    path = tmp_path_factory.mktemp("states") / "random" / "rank_0.json"
    write_states(path, host_states())
    expected = [draws(), draws()]
    assert [draws(), draws()] != expected
    set_host_states(read_states(path))
    assert [draws(), draws()] == expected
    assert [entry.name for entry in path.parent.iterdir()] == ["rank_0.json"]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"python": [3', "\x00\xff", "[" * 100_000])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rank_3.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(RandomStatesError, match=r"rank_3\.json, the random states of this checkpoint") as caught:
        read_states(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"python": [3, [1, 2], None]},
        {"python": [3, ["1"] * 625, None]},
        {"numpy": ["PCG64", [0] * 624, 0, 0, 0.0]},
        {"numpy": ["MT19937", [0] * 5, 0, 0, 0.0]},
        {"numpy": None},
        {"torch": "00"},
        {"torch": "no digits"},
        {"torch": 5},
    ],
)
def test_what_is_no_state_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UNUSABLE):
        set_host_states(host_states() | change)


@given(one=st.integers(0, 2**31 - 1), other=st.integers(0, 2**31 - 1))
def test_seeds_of_one_run_are_not_those_of_another(one: int, other: int) -> None:
    engines = {derived_seed(one, "rollout", 0, engine) for engine in range(256)}
    assert len(engines) == 256 and max(engines) < 2**63
    assert derived_seed(one, "rollout", 0, 0) in engines
    if one != other:
        assert not engines & {derived_seed(other, "rollout", 0, engine) for engine in range(256)}
    assert derived_seed(one, "step", 1, bits=31) < 2**31
