# SPDX-License-Identifier: Apache-2.0
"""An unfinished request as bytes: out of one vLLM engine, into another, where it goes on as after a preemption.

A request takes along its prompt, the tokens that it has got with their log-probabilities and ranks, and its sampling
parameters, so that its answer in the end is as if it had stayed. Its keys and values stay behind: the receiver prefills
its tokens again, by the way on which vLLM resumes a request that was preempted. Random numbers follow from its seed
(vllm_patches/draws.py); a request without one is sampled by the generator of the engine where it is.
"""

# NPU-ADAPTATION: an unfinished request leaves one engine and goes on in another

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch

# A request's number in its domain: above these bits its home, the data-parallel rank where it was asked for, plus one;
# below, its name there. What has moved has its number for a name, and above these bits how often something had moved.
HOME_BITS, MOVE_BITS = 32, 48
# Number; lengths of prompt and answer; bytes of what follows the arrays; whether there are log-probabilities; kind and
# shape of the experts.
_HEADER = struct.Struct("<qIIIBBIII")
_EXPERTS = ("", "|u1", "<i2")


class NotMovable(ValueError):
    """A request that would not be the same in another engine."""


@dataclass
class Traveller:
    """What of a request goes from one engine to another.

    Attributes:
        number: of the request in its domain; see `number_of`.
        prompt, generated: token ids, int32.
        log_probs, ranks: of the generated tokens, float32 and int32; None where none are asked for.
        rest: in msgpack: sampling parameters, or how a finished one ended.
        experts: chosen for the tokens that have been computed, uint8 or int16 of [tokens, layers, experts per token];
            None where they are not kept.
    """

    number: int
    prompt: np.ndarray
    generated: np.ndarray
    log_probs: np.ndarray | None
    ranks: np.ndarray | None
    rest: bytes
    experts: np.ndarray | None = None

    def pack(self) -> bytes:
        with_log_probs = self.log_probs is not None and self.ranks is not None
        lengths = len(self.prompt), len(self.generated), len(self.rest)
        kind = 0 if self.experts is None else _EXPERTS.index(self.experts.dtype.str)
        shape = (0, 0, 0) if self.experts is None else self.experts.shape
        header = _HEADER.pack(self.number, *lengths, with_log_probs, kind, *shape)
        arrays = [self.prompt.astype("<i4"), self.generated.astype("<i4")]
        if self.log_probs is not None and self.ranks is not None:
            arrays += [self.log_probs.astype("<f4"), self.ranks.astype("<i4")]
        if self.experts is not None:
            arrays.append(self.experts)
        return b"".join([header, *(array.tobytes() for array in arrays), self.rest])

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.generated)


def unpack(data: bytes) -> list[Traveller]:
    """The travellers that were packed one after the other.

    Raises:
        ValueError: the bytes are not those of whole travellers.
    """
    found, place = [], 0

    def array(kind: str, count: int) -> np.ndarray:
        nonlocal place
        values = np.frombuffer(data, dtype=kind, count=count, offset=place)
        place += values.nbytes
        return values

    while place < len(data):
        try:
            number, prompt, generated, rest, with_log_probs, kind, *shape = _HEADER.unpack_from(data, place)
            place += _HEADER.size
            ids = array("<i4", prompt), array("<i4", generated)
            log_probs = array("<f4", generated) if with_log_probs else None
            ranks = array("<i4", generated) if with_log_probs else None
            experts = array(_EXPERTS[kind], math.prod(shape)).reshape(shape) if kind else None
        except (struct.error, ValueError) as error:
            raise ValueError(f"{len(data)} bytes of requests end within one: {error}") from None
        if place + rest > len(data):
            raise ValueError(f"{len(data)} bytes of requests end within one")
        found.append(Traveller(number, *ids, log_probs, ranks, data[place : place + rest], experts))
        place += rest
    return found


def number_of(name: str, engine: int) -> int:
    """A request's number in the domain, from its name in the engine `engine`."""
    number = int(name) & ((1 << MOVE_BITS) - 1)
    return number if has_moved(name) else ((engine + 1) << HOME_BITS) | number


def has_moved(name: str) -> bool:
    return int(name) >> HOME_BITS > 0


def name_after(number: int, move: int) -> str:
    """The name of a request where it goes; never one that it had there before, which the engine may not yet be rid of.

    Args:
        number: of the request.
        move: a number of the hand-over, from 1 on, of which no other in this generation has the same.
    """
    return str((move << MOVE_BITS) | number)


def home_of(number: int) -> tuple[int, str]:
    """The engine where a request was asked for, and its name there."""
    return (number >> HOME_BITS) - 1, str(number & ((1 << HOME_BITS) - 1))


def require_movable(parameters: Any) -> None:
    """Raises NotMovable for what does not travel: more than the sampled token's log-probability, and guided output."""
    unmovable = {
        "n": parameters.n != 1,
        "logprobs": parameters.logprobs not in (None, 0),
        "prompt_logprobs": parameters.prompt_logprobs is not None,
        "logits_processors": bool(parameters.logits_processors),
        "guided_decoding": parameters.guided_decoding is not None,
        "detokenize": bool(parameters.detokenize),
    }
    found = [name for name, there in unmovable.items() if there]
    if found:
        raise NotMovable(f"requests with {', '.join(found)} cannot change engines: leave out rollout.rebalance")


def take(engine: Any, name: str, number: int) -> Traveller:
    """What a request takes along; it stays in vLLM's LLMEngine `engine` until it is aborted there."""
    request = engine.engine_core.engine_core.scheduler.requests[name]
    require_movable(request.sampling_params)
    if request.lora_request is not None or request.mm_inputs:
        raise NotMovable("requests with adapters or images cannot change engines: leave out rollout.rebalance")
    state = engine.output_processor.request_states[name]
    tokens = list(request.output_token_ids)
    log_probs, ranks = _probabilities(state.logprobs_processor.logprobs, tokens)
    return Traveller(
        number,
        np.array(request.prompt_token_ids, dtype=np.int32),
        np.array(tokens, dtype=np.int32),
        log_probs,
        ranks,
        msgspec.msgpack.encode(request.sampling_params),
    )


def give(engine: Any, runner: Any, traveller: Traveller, name: str) -> None:
    """Let a request go on in `engine`, whose model runner is `runner`, under a new name."""
    from vllm.sampling_params import SamplingParams, SamplingType
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.request import Request, RequestStatus
    from vllm.v1.worker.gpu_input_batch import CachedRequestState

    parameters = msgspec.msgpack.decode(traveller.rest, type=SamplingParams)
    prompt, generated = traveller.prompt.tolist(), traveller.generated.tolist()
    asked = EngineCoreRequest(
        request_id=name,
        prompt_token_ids=prompt,
        mm_inputs=None,
        mm_hashes=None,
        mm_placeholders=None,
        sampling_params=parameters,
        eos_token_id=engine.processor.input_preprocessor.get_eos_token_id(None),
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
    engine.output_processor.add_request(asked, None)
    state = engine.output_processor.request_states[name]
    state.detokenizer.token_ids.extend(generated)
    if traveller.log_probs is not None and traveller.ranks is not None:
        processor = state.logprobs_processor
        for token, log_prob, rank in zip(
            generated, traveller.log_probs.tolist(), traveller.ranks.tolist(), strict=True
        ):
            processor.cumulative_logprob += log_prob
            processor.logprobs.append(_entry(token, log_prob, rank))
    generator = None
    if parameters.sampling_type == SamplingType.RANDOM_SEED:
        generator = torch.Generator(device=runner.device)
        generator.manual_seed(parameters.seed)
    # The model runner keeps what it knows of a preempted request; of this one it is told.
    runner.requests[name] = CachedRequestState(
        req_id=name,
        prompt_token_ids=prompt,
        mm_inputs=[],
        mm_positions=[],
        sampling_params=parameters,
        generator=generator,
        block_ids=([],),
        num_computed_tokens=0,
        output_token_ids=list(generated),
    )
    request = Request.from_engine_core_request(asked)
    request.append_output_token_ids(generated)
    request.status = RequestStatus.PREEMPTED
    engine.engine_core.engine_core.scheduler.add_request(request)


def take_output(output: Any) -> Traveller:
    """The RequestOutput of a finished request that has moved, on its way home."""
    (completion,) = output.outputs
    tokens = list(completion.token_ids)
    log_probs, ranks = _probabilities(completion.logprobs, tokens)
    return Traveller(
        number_of(output.request_id, 0),
        np.array(output.prompt_token_ids, dtype=np.int32),
        np.array(tokens, dtype=np.int32),
        log_probs,
        ranks,
        msgspec.msgpack.encode((completion.finish_reason, completion.stop_reason)),
    )


def output_of(traveller: Traveller) -> Any:
    """The RequestOutput at home, as the engine there would have made it."""
    from vllm.outputs import CompletionOutput, RequestOutput

    finish_reason, stop_reason = msgspec.msgpack.decode(traveller.rest)
    tokens, log_probs, cumulative = traveller.generated.tolist(), None, None
    if traveller.log_probs is not None and traveller.ranks is not None:
        values = traveller.log_probs.tolist()
        log_probs = [_entry(*one) for one in zip(tokens, values, traveller.ranks.tolist(), strict=True)]
        cumulative = sum(values, 0.0)
    completion = CompletionOutput(0, "", tokens, cumulative, log_probs, finish_reason, stop_reason)
    return RequestOutput(
        request_id=home_of(traveller.number)[1],
        prompt=None,
        prompt_token_ids=traveller.prompt.tolist(),
        prompt_logprobs=None,
        outputs=[completion],
        finished=True,
    )


def _probabilities(entries: Sequence[Any] | None, tokens: Sequence[int]) -> tuple[Any, Any]:
    """Log-probabilities and ranks of the tokens, from vLLM's dictionaries.

    Raises:
        ValueError: there are not as many as tokens.
    """
    if entries is None:
        return None, None
    found = [entry[token] for entry, token in zip(entries, tokens, strict=True)]
    return (
        np.array([one.logprob for one in found], dtype=np.float32),
        np.array([one.rank for one in found], dtype=np.int32),
    )


def _entry(token: int, log_prob: float, rank: int) -> dict[int, Any]:
    from vllm.sequence import Logprob

    return {token: Logprob(logprob=log_prob, rank=rank, decoded_token=None)}
