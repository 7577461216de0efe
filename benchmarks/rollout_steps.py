# SPDX-License-Identifier: Apache-2.0
"""The steps of the engines of a data-parallel domain, for answers whose lengths are known: no model, no time.

What vLLM's scheduler puts into each step, which of vLLM-Ascend's graphs the domain then runs, and what the planner of
our rollout moves, by the same rules as the real ones; tests/benchmarks/test_rollout_engines.py shows that real engines
take the same steps. Left out: the KV cache, which here holds everything, so that nothing is preempted; prefix caching;
and the time of a step.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from verl_patches.workers.rollout.vllm_rollout.balance.plan import (
    Move,
    Running,
    Watch,
    expected_rest,
    graph_for,
    plan_moves,
)


@dataclass(frozen=True)
class Answer:
    """A request: its number in the domain, and the tokens of its prompt and of the answer that it will get."""

    number: int
    prompt: int
    length: int


@dataclass(frozen=True)
class Rules:
    """How engines are set up.

    Attributes:
        sizes: of the compiled graphs, ascending.
        budget: most tokens of an engine's step.
        chunked: prompts go in pieces, beside decoding requests; otherwise a prompt goes whole, and while there is one
            nothing decodes (vLLM-Ascend's scheduler).
        longest: most tokens of an answer.
        balanced: unfinished requests move.
    """

    sizes: tuple[int, ...]
    budget: int
    longest: int
    chunked: bool = True
    balanced: bool = False


@dataclass(frozen=True)
class Step:
    """One step of the domain: the graph that all engines run; or, if any prefills, none, and each engine's tokens."""

    graph: int
    tokens: tuple[int, ...] = ()


@dataclass
class Counts:
    """What a rollout took.

    Attributes:
        decode_steps: by the size of the graph.
        mixed_steps: in which an engine prefilled, so that no graph ran.
        mixed_padded: tokens of those: of the engine that has most, times the engines, which wait for it.
        idle: engine steps of an engine without requests, among `engine_steps` of any kind.
        moved, prefilled_again: requests that changed engines, and the tokens that they brought.
        finished: how often each request was.
    """

    engines: int
    decode_steps: Counter[int] = field(default_factory=Counter)
    decoded: int = 0
    mixed_steps: int = 0
    mixed_padded: int = 0
    idle: int = 0
    moved: int = 0
    prefilled_again: int = 0
    finished: Counter[int] = field(default_factory=Counter)

    @property
    def padded_tokens(self) -> int:
        """Decode steps times the padded batch of all engines."""
        return self.engines * sum(size * steps for size, steps in self.decode_steps.items())

    @property
    def engine_steps(self) -> int:
        return self.engines * (self.mixed_steps + self.decode_steps.total())


@dataclass
class _Prefill:
    answer: Answer
    tokens: int  # of the prompt, and of the answer if it has moved
    left: int  # of the answer
    done: int = 0


class _Engine:
    """One engine's scheduler; a request that decodes is kept by the number of decodes after which it ends."""

    def __init__(self, rules: Rules, most: int, answers: Sequence[Answer]) -> None:
        self._rules, self._most = rules, most
        self.waiting = deque(_Prefill(one, one.prompt, one.length) for one in answers)
        self._partial: _Prefill | None = None
        self._decoding: list[tuple[int, int, Answer]] = []
        self._clock = 0

    @property
    def decoding(self) -> int:
        return len(self._decoding)

    @property
    def prefilling(self) -> int:
        return len(self.waiting) + (self._partial is not None)

    @property
    def steps_to_next_end(self) -> int:
        return self._decoding[0][0] - self._clock if self._decoding else 1 << 62

    def table(self) -> list[Running]:
        found = []
        for end, number, answer in self._decoding:
            generated = answer.length - (end - self._clock)
            rest = expected_rest(generated, self._rules.longest - generated)
            found.append(Running(number, answer.prompt + generated, rest))
        return found

    def give(self, move: Move) -> _Prefill:
        (entry,) = (entry for entry in self._decoding if entry[1] == move.request)
        self._decoding.remove(entry)
        heapq.heapify(self._decoding)
        return _Prefill(entry[2], move.tokens, entry[0] - self._clock)

    def schedule(self) -> tuple[bool, list[tuple[_Prefill, int]]]:
        """Whether what decodes does so in the next step, and which prompts get how many tokens in it."""
        rules, chosen = self._rules, list[tuple[_Prefill, int]]()
        if not rules.chunked:
            room, budget, kept = self._most - self.decoding, rules.budget, deque[_Prefill]()
            while self.waiting and budget and room:
                one = self.waiting.popleft()
                if one.tokens > budget:
                    kept.append(one)
                    continue
                chosen.append((one, one.tokens))
                room, budget = room - 1, budget - one.tokens
            self.waiting.extendleft(reversed(kept))
            return not chosen, chosen
        budget = rules.budget - self.decoding
        room = self._most - self.decoding
        if self._partial:
            chosen.append((self._partial, min(budget, self._partial.tokens - self._partial.done)))
            room, budget = room - 1, budget - chosen[-1][1]
            self._partial = None
        while self.waiting and budget and room:
            one = self.waiting.popleft()
            chosen.append((one, min(budget, one.tokens)))
            room, budget = room - 1, budget - chosen[-1][1]
        return True, chosen

    def decode(self, steps: int = 1) -> list[Answer]:
        """What ends by that."""
        self._clock += steps
        ended = []
        while self._decoding and self._decoding[0][0] <= self._clock:
            ended.append(heapq.heappop(self._decoding)[2])
        return ended

    def prefill(self, chosen: Sequence[tuple[_Prefill, int]]) -> list[Answer]:
        """What ends by its first token."""
        ended = []
        for one, tokens in chosen:
            one.done += tokens
            if one.done < one.tokens:
                self._partial = one
            elif one.left == 1:
                ended.append(one.answer)
            else:
                heapq.heappush(self._decoding, (self._clock + one.left - 1, one.answer.number, one.answer))
        return ended


def replay(engines: Sequence[Sequence[Answer]], rules: Rules, trace: list[Step] | None = None) -> Counts:
    """Run the engines until every request is finished.

    Args:
        engines: the answers of each, in the order in which they are asked for; an engine may run as many at once as
            the largest graph holds.
        rules: how they are set up.
        trace: gets every step, if given.
    """
    fleet = [_Engine(rules, rules.sizes[-1], answers) for answers in engines]
    counts, watch, step = Counts(len(fleet)), Watch(rules.sizes if rules.balanced else ()), 0
    while any(engine.decoding or engine.prefilling for engine in fleet):
        running, prefilling = [engine.decoding for engine in fleet], sum(engine.prefilling for engine in fleet)
        if watch.asks(step, running, prefilling):
            plan = plan_moves([engine.table() for engine in fleet], rules.sizes)
            watch.planned(step, plan)
            for move in plan.moves:
                fleet[move.target].waiting.append(fleet[move.source].give(move))
                counts.moved, counts.prefilled_again = counts.moved + 1, counts.prefilled_again + move.tokens
            prefilling = len(plan.moves)
        if prefilling:
            _mixed_step(fleet, rules, counts, trace)
            step += 1
            continue
        steps = min(engine.steps_to_next_end for engine in fleet)
        if quiet := watch.quiet_steps(step):
            steps = min(steps, quiet)
        size = graph_for(max(running), rules.sizes)
        counts.decode_steps[size] += steps
        counts.decoded += steps * sum(running)
        counts.idle += steps * running.count(0)
        if trace is not None:
            trace.extend([Step(size)] * steps)
        for engine in fleet:
            counts.finished.update(one.number for one in engine.decode(steps))
        step += steps
    return counts


def _mixed_step(fleet: Sequence[_Engine], rules: Rules, counts: Counts, trace: list[Step] | None) -> None:
    tokens, prefills = [], False
    for engine in fleet:
        decoding = engine.decoding
        counts.idle += not (decoding or engine.prefilling)
        decodes, chosen = engine.schedule()
        decoding = decoding if decodes else 0
        tokens.append(decoding + sum(count for _, count in chosen))
        prefills = prefills or _prefills(decoding, chosen)
        ended = engine.decode() if decodes else []
        counts.decoded += decoding
        counts.finished.update(one.number for one in ended + engine.prefill(chosen))
    # An engine without requests goes along with one token.
    tokens = [max(1, count) for count in tokens]
    if prefills:
        counts.mixed_steps += 1
        counts.mixed_padded += len(fleet) * max(tokens)
    else:
        counts.decode_steps[graph_for(max(tokens), rules.sizes)] += 1
    if trace is not None:
        trace.append(Step(0, tuple(tokens)) if prefills else Step(graph_for(max(tokens), rules.sizes)))


def _prefills(decoding: int, chosen: Sequence[tuple[_Prefill, int]]) -> bool:
    """Whether vLLM-Ascend takes an engine's step for a prefill: a last piece of one token looks like a decode."""
    if not chosen:
        return False
    if not decoding and all(one.done == 0 for one, _ in chosen):
        return True
    return any(count != 1 for _, count in chosen)
