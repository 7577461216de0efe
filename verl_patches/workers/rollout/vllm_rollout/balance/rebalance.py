# SPDX-License-Identifier: Apache-2.0
"""Unfinished requests change engines between two steps of vLLM's loop, and their answers come home at its end.

Before every step vLLM asks all engines of a domain whether any has unfinished requests. In the place of that question,
they tell each other how many they decode. When the planner may find moves (balance/plan.py), each tells its table and
makes the same plan of all; then

1. agreed: all ranks have the same plan;
2. handed over: what leaves is packed, sent, and taken up by the receivers;
3. committed: once all receivers have acknowledged, it is aborted where it was.

A rank that fails in one of these makes all of them raise. At the end of the loop, which is the same for all, the
answers of what has moved go home, and each rank counts that it has one for each request that it was asked for.
"""

# NPU-ADAPTATION: requests are evened out over the engines, so that all decode with a smaller graph

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from verl_patches.workers.rollout.vllm_rollout.balance.domain import Domain, HandOverFailed
from verl_patches.workers.rollout.vllm_rollout.balance.plan import Running, Watch, expected_rest, plan_moves
from verl_patches.workers.rollout.vllm_rollout.balance.requests import (
    Traveller,
    give,
    has_moved,
    home_of,
    name_after,
    number_of,
    output_of,
    require_movable,
    take,
    take_output,
    unpack,
)
from vllm_patches import dp_sync

OPTION = "RECIPE_REBALANCE"


def asked_for() -> bool:
    return os.environ.get(OPTION, "0") == "1"


@dataclass
class Moved:
    """Requests that an engine gave away in one generation, and their tokens, which others prefilled again."""

    requests: int = 0
    tokens: int = 0


class Rebalancer:
    """Stands in for two methods of one engine during one generation.

    Args:
        llm: vLLM's LLM.
        longest: tokens that an answer may have.
        experts: keeps the experts chosen for each request's tokens (`take(name)`, `give(name, experts)`), if anything.
    """

    def __init__(self, llm: Any, longest: int, experts: Any = None) -> None:
        from vllm.distributed.parallel_state import get_dp_group, get_tp_group

        self._engine = llm.llm_engine
        self._longest, self._experts = longest, experts
        self._runner = self._engine.model_executor.driver_worker.worker.model_runner
        self._scheduler = self._engine.engine_core.engine_core.scheduler
        self._domain = Domain(get_dp_group(), get_tp_group(), _reduce)
        self._watch = Watch(sorted(self._runner.torchair_graph_batch_sizes))
        self._step = 0
        # Of what came from elsewhere: tokens that it brought, by its name.
        self._brought: dict[str, int] = {}
        self.moved = Moved()

    def has_unfinished_requests(self, stock: Callable[[], bool]) -> bool:
        """vLLM's question before every step, in the place of the collective that it costs there."""
        del stock
        decoding = [request for request in self._scheduler.running if self._decodes(request)]
        counts = self._domain.counts(
            len(decoding), self._engine.output_processor.get_num_unfinished_requests() - len(decoding)
        )
        running = [row[0] for row in counts]
        if self._watch.asks(self._step, running, sum(row[1] for row in counts)):
            self._rebalance(decoding, running)
        self._step += 1
        anyone = any(map(any, counts))
        if anyone and not self._engine.output_processor.has_unfinished_requests():
            self._engine.should_execute_dummy_batch = True
        return anyone

    def run_engine(self, stock: Callable[..., list[Any]], **options: Any) -> list[Any]:
        """vLLM's loop over the steps; returns the outputs of what was asked of this engine, in its order.

        Raises:
            HandOverFailed: a hand-over failed somewhere, or an answer is missing or there twice; the engine is left
                without requests.
        """
        asked = list(self._engine.output_processor.request_states)
        for name in asked:
            require_movable(self._scheduler.requests[name].sampling_params)
        try:
            outputs = stock(**options)
        except HandOverFailed:
            self._engine.abort_request(list(self._engine.output_processor.request_states))
            raise
        mine = [output for output in outputs if not has_moved(output.request_id)]
        others = [output for output in outputs if has_moved(output.request_id)]
        packed = self._domain.agreed("packing answers", lambda: self._homeward(others))
        arrived = self._domain.exchange(packed)

        def complete() -> list[Any]:
            travellers = [one for data in arrived for one in unpack(data)]
            for one in travellers:
                self._unload(one, home_of(one.number)[1])
            found = mine + [output_of(one) for one in travellers]
            times = Counter(output.request_id for output in found)
            wrong = sorted({*times, *asked} - {name for name in asked if times[name] == 1}, key=int)
            if wrong:
                raise ValueError(f"answers that came back {[(name, times[name]) for name in wrong]} times, not once")
            return sorted(found, key=lambda output: int(output.request_id))

        return self._domain.agreed("collecting answers", complete)

    def _decodes(self, request: Any) -> bool:
        """Whether all but its last token are in the cache; in the first step after a prompt or a move none is new."""
        new = request.num_output_tokens > self._brought.get(request.request_id, 0)
        return bool(new and request.num_computed_tokens >= request.num_tokens - 1)

    def _rebalance(self, decoding: list[Any], running: list[int]) -> None:
        domain, engine = self._domain, self._engine
        mine = [self._row(request) for request in decoding]
        tables = domain.tables(mine, running, columns=3)
        plan = plan_moves([[Running(*row) for row in table] for table in tables], self._watch.sizes)
        self._watch.planned(self._step, plan)
        domain.agree("comparing plans", number=plan.digest)
        if not plan.moves:
            return
        names = {number_of(request.request_id, domain.rank): request.request_id for request in decoding}
        leaving = [move for move in plan.moves if move.source == domain.rank]

        def pack() -> list[bytes]:
            bags = [bytearray() for _ in range(domain.size)]
            for move in leaving:
                traveller = take(engine, names[move.request], move.request)
                bags[move.target] += self._load(traveller, names[move.request]).pack()
            return [bytes(bag) for bag in bags]

        packed = domain.agreed("packing requests", pack)
        arrived = domain.exchange(packed)
        taken_up: list[str] = []

        def take_up() -> None:
            expected = {move.request: move.tokens for move in plan.moves if move.target == domain.rank}
            travellers = [one for data in arrived for one in unpack(data)]
            if {one.number: one.tokens for one in travellers} != expected or len(travellers) != len(expected):
                raise ValueError(f"{len(travellers)} requests came, and the plan has {len(expected)}, or other ones")
            for one in travellers:
                taken_up.append(name_after(one.number, self._step + 1))
                give(engine, self._runner, one, taken_up[-1])
                self._unload(one, taken_up[-1])
                self._brought[taken_up[-1]] = len(one.generated)

        try:
            domain.agreed("taking up requests", take_up)
        except HandOverFailed:
            engine.abort_request(taken_up)
            raise
        engine.abort_request([names[move.request] for move in leaving])
        self.moved.requests += len(leaving)
        self.moved.tokens += sum(move.tokens for move in leaving)

    def _row(self, request: Any) -> tuple[int, int, int]:
        generated = request.num_output_tokens
        number = number_of(request.request_id, self._domain.rank)
        return number, request.num_tokens, expected_rest(generated, self._longest - generated)

    def _homeward(self, outputs: list[Any]) -> list[bytes]:
        bags = [bytearray() for _ in range(self._domain.size)]
        for output in outputs:
            traveller = self._load(take_output(output), output.request_id)
            bags[home_of(traveller.number)[0]] += traveller.pack()
        return [bytes(bag) for bag in bags]

    def _load(self, traveller: Traveller, name: str) -> Traveller:
        """With the experts that were kept under its name here."""
        if self._experts is not None:
            traveller.experts = self._experts.take(name)
        return traveller

    def _unload(self, traveller: Traveller, name: str) -> None:
        """Its experts are kept under its name here."""
        if self._experts is not None and traveller.experts is not None:
            self._experts.give(name, traveller.experts)


def _reduce(table: torch.Tensor) -> None:
    """Over hosts or devices, as vLLM's own question."""
    from vllm.distributed.parallel_state import get_dp_group

    if dp_sync.asked_for():
        dp_sync.all_reduce_on_device(table, dist.ReduceOp.SUM)
    else:
        dist.all_reduce(table, group=get_dp_group().cpu_group)
