# SPDX-License-Identifier: Apache-2.0
"""What of a request travels arrives whole, or is refused; how it is taken and given is shown on real engines.

(tests/exactness/rollout/test_balance_exactness.py)
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.sequence import Logprob

from verl_patches.workers.rollout.vllm_rollout.balance.requests import (
    NotMovable,
    Traveller,
    has_moved,
    home_of,
    name_after,
    number_of,
    output_of,
    require_movable,
    take_output,
    unpack,
)


@st.composite
def travellers(draw: st.DrawFn) -> Traveller:
    ids = st.integers(0, 2**31 - 1)
    generated = draw(st.lists(ids, max_size=20))
    count = st.lists(st.floats(-100, 0, width=32), min_size=len(generated), max_size=len(generated))
    ranks = st.lists(ids, min_size=len(generated), max_size=len(generated))
    with_log_probs = draw(st.booleans())
    shape = draw(st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 3)))
    experts = np.arange(np.prod(shape), dtype=draw(st.sampled_from([np.uint8, np.int16]))).reshape(shape)
    return Traveller(
        draw(st.integers(1 << 32, (1 << 48) - 1)),
        np.array(draw(st.lists(ids, min_size=1, max_size=20)), dtype=np.int32),
        np.array(generated, dtype=np.int32),
        np.array(draw(count), dtype=np.float32) if with_log_probs else None,
        np.array(draw(ranks), dtype=np.int32) if with_log_probs else None,
        draw(st.binary(max_size=30)),
        experts if draw(st.booleans()) else None,
    )


def plain(one: Traveller) -> tuple[object, ...]:
    arrays = (one.prompt, one.generated, one.log_probs, one.ranks, one.experts)
    kind = None if one.experts is None else (one.experts.dtype, one.experts.shape)
    return kind, one.number, *(None if array is None else array.tolist() for array in arrays), one.rest


@settings(max_examples=200, deadline=None)
@given(st.lists(travellers(), max_size=4), st.data())
def test_travellers_arrive_whole_or_not_at_all(sent: list[Traveller], data: st.DataObject) -> None:
    packed = b"".join(one.pack() for one in sent)
    assert [plain(one) for one in unpack(packed)] == [plain(one) for one in sent]
    ends = {len(b"".join(one.pack() for one in sent[:count])) for count in range(len(sent) + 1)}
    cut = data.draw(st.integers(0, len(packed)))
    if cut not in ends:
        with pytest.raises(ValueError, match="end within one"):
            unpack(packed[:cut])


@given(st.integers(0, 2**15 - 1), st.integers(0, 2**32 - 1), st.integers(1, 10**6))
def test_a_number_says_where_the_request_was_asked_for(home: int, name: int, move: int) -> None:
    number = number_of(str(name), home)
    assert home_of(number) == (home, str(name)) and not has_moved(str(name))
    for other in (0, home, 77):
        assert number_of(name_after(number, move), other) == number
    assert has_moved(name_after(number, move)) and name_after(number, move) != name_after(number, move + 1)


def test_sampling_parameters_travel_with_all_that_they_say() -> None:
    sent = SamplingParams(
        temperature=0.7, top_p=0.9, top_k=5, seed=7, max_tokens=11, logprobs=0, detokenize=False, stop_token_ids=[3],
        repetition_penalty=1.1, min_tokens=2, ignore_eos=True,
    )  # fmt: skip
    sent.update_from_generation_config({}, 9)
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=SamplingParams)
    assert arrived == sent and arrived.all_stop_token_ids == sent.all_stop_token_ids == {3, 9}
    require_movable(arrived)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"n": 2}, "n"), ({"logprobs": 3}, "logprobs"), ({"prompt_logprobs": 1}, "prompt_logprobs")],
)
def test_what_would_not_be_the_same_elsewhere_is_refused(changed: dict[str, int], named: str) -> None:
    with pytest.raises(NotMovable, match=f"requests with {named} cannot"):
        require_movable(SamplingParams(detokenize=False, **changed))


@pytest.mark.parametrize("with_log_probs", [True, False])
def test_an_answer_comes_home_as_the_engine_there_would_have_given_it(with_log_probs: bool) -> None:
    tokens, values = [5, 6, 5], [-0.25, -1.5, -3.0]
    entries = [{token: Logprob(value, 1, None)} for token, value in zip(tokens, values, strict=True)]

    def output(name: str) -> RequestOutput:
        there = (sum(values), entries) if with_log_probs else (None, None)
        completion = CompletionOutput(0, "", tokens, *there, "length", None)
        return RequestOutput(name, None, [8, 9], None, [completion], True)

    travelled = take_output(output(name_after(number_of("17", 3), 40)))
    assert home_of(travelled.number) == (3, "17")
    (arrived,) = unpack(travelled.pack())
    assert repr(output_of(arrived)) == repr(output("17")).replace("num_cached_tokens=0", "num_cached_tokens=None")
