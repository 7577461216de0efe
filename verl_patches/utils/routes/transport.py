# SPDX-License-Identifier: Apache-2.0
"""One rank's part of the routes, carried out with torch.distributed between the parameters of both engines."""

# NPU-ADAPTATION: a die is sent only the weights that it lacks: the sending

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.distributed as dist

from verl_patches.utils.routes.routes import RankPlan, Round, Routes
from verl_patches.utils.routes.spans import Exchange, Slice, Span, actor_slice, rollout_slice

_SIGNED = 2**63


class RoutesDisagree(RuntimeError):
    """The ranks would not send what the others expect."""


def agree(plan: RankPlan, device: torch.device | str) -> None:
    """Compare this rank's plan with all others'. Collective over the world; 16 bytes a rank.

    Raises:
        RoutesDisagree: on every rank, if they were given different layouts, sizes or buffers, or if what they worked
            out does not fit together.
    """
    own = [int(plan.fingerprint[:16], 16) - _SIGNED, plan.ledger - _SIGNED]
    mine = torch.tensor(own, dtype=torch.int64, device=device)
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    told = [(int(fingerprint), int(ledger) + _SIGNED) for fingerprint, ledger in torch.stack(gathered).tolist()]
    others = [rank for rank, (fingerprint, _) in enumerate(told) if fingerprint != told[0][0]]
    if others:
        raise RoutesDisagree(
            f"ranks {others} were given other layouts, model sizes or buffer than rank 0: nothing was sent"
        )
    if sum(ledger for _, ledger in told) % (2 * _SIGNED):
        raise RoutesDisagree("what some rank would send is not what another expects: nothing was sent")


class Transport:
    """Moves the weights by a rank's plan.

    Args:
        routes: the routes, the same on all ranks.
        rank: this rank.
        weight_type: of the actor's weights, and so of what travels; `routes.item_bytes` are its bytes. What travels in
            float32 beside it (the router's bias) goes as several elements of this type, bit for bit.

    Raises:
        ValueError: the type has another size.
    """

    def __init__(self, routes: Routes, rank: int, weight_type: torch.dtype = torch.bfloat16) -> None:
        if weight_type.itemsize != routes.item_bytes:
            raise ValueError(f"{weight_type} has {weight_type.itemsize} bytes, the routes count {routes.item_bytes}")
        self._routes, self._rank, self._type = routes, rank, weight_type
        self.plan = routes.of_rank(rank)
        self._calls = [(round_, tuple(_calls(round_))) for round_ in self.plan.all_rounds]

    @property
    def calls(self) -> int:
        """Batches of messages that this rank posts."""
        return sum(len(calls) for _, calls in self._calls)

    def move(self, actor: Mapping[str, torch.Tensor], rollout: Mapping[str, torch.Tensor]) -> set[str]:
        """Fill the rollout's parameters with the actor's. Every rank calls it; those that exchange nothing do not wait
        for one another.

        Args:
            actor: this rank's parameters by Megatron-core's names, layers numbered as in the whole model.
            rollout: this rank's parameters by vLLM's names.

        Returns:
            The names of the rollout's parameters that were written.

        Raises:
            KeyError: a parameter that the plan counts on is not there.
        """
        written: set[str] = set()
        for span in self.plan.own:
            source, destination = self._held(actor, span), self._kept(rollout, span, written)
            destination.copy_(source)
        for parameter, rows in self.plan.padding:
            rollout[parameter].detach()[rows:].zero_()
            written.add(parameter)  # which may be padding alone
        most = max((round_.buffer_bytes for round_ in self.plan.all_rounds), default=0)
        device = next(iter(rollout.values())).device
        # Zeros, as in a rehearsal nothing comes, and what was in the memory before may be no number.
        buffer = torch.zeros(most // self._type.itemsize, dtype=self._type, device=device)
        for round_, calls in self._calls:
            self._carry_out(round_, calls, buffer, actor, rollout, written)
        return written

    def _carry_out(
        self,
        round_: Round,
        calls: Iterable[Mapping[tuple[int, bool], Exchange]],
        buffer: torch.Tensor,
        actor: Mapping[str, torch.Tensor],
        rollout: Mapping[str, torch.Tensor],
        written: set[str],
    ) -> None:
        messages = {}
        start = 0
        for exchange in (*round_.sends, *round_.receives):
            stop = start + exchange.nbytes // self._type.itemsize
            messages[id(exchange)] = buffer[start:stop]
            start = stop
        for exchange in round_.sends:
            for span, room in self._rooms(exchange, messages[id(exchange)]):
                self._pack(self._held(actor, span), span, room)
        works = []
        for call in calls:
            operations = [
                dist.P2POp(dist.isend if sends else dist.irecv, messages[id(exchange)], peer)
                for (peer, sends), exchange in call.items()
            ]
            works += dist.batch_isend_irecv(operations)
        for work in works:
            work.wait()
        for exchange in round_.receives:
            for span, room in self._rooms(exchange, messages[id(exchange)]):
                self._unpack(self._kept(rollout, span, written), span, room)

    def _rooms(self, exchange: Exchange, message: torch.Tensor) -> Iterator[tuple[Span, torch.Tensor]]:
        """The part of a message that each of its spans takes."""
        start = 0
        for span in exchange.spans:
            stop = start + span.nbytes // self._type.itemsize
            yield span, message[start:stop]
            start = stop

    def _pack(self, source: torch.Tensor, span: Span, room: torch.Tensor) -> None:
        if span.tensor.item_bytes == self._type.itemsize:
            room.view(source.shape).copy_(source)
        else:
            room.copy_(source.to(torch.float32).reshape(-1).view(self._type))

    def _unpack(self, destination: torch.Tensor, span: Span, room: torch.Tensor) -> None:
        if span.tensor.item_bytes != self._type.itemsize:
            room = room.clone().view(torch.float32)  # a copy, as a view of wider elements must begin at one
        destination.copy_(room.view(destination.shape))

    def _held(self, actor: Mapping[str, torch.Tensor], span: Span) -> torch.Tensor:
        return _view(actor, actor_slice(span, self._routes.actor, self._rank, self._routes.sizes))

    def _kept(self, rollout: Mapping[str, torch.Tensor], span: Span, written: set[str]) -> torch.Tensor:
        where = rollout_slice(span, self._routes.rollout, self._rank, self._routes.sizes)
        written.add(where.parameter)
        return _view(rollout, where)


def _calls(round_: Round) -> Iterator[Mapping[tuple[int, bool], Exchange]]:
    """The messages of a round, by peer and whether they are sent: the n-th to and from each peer in the n-th call."""
    queues: defaultdict[tuple[int, bool], list[Exchange]] = defaultdict(list)
    for exchange in round_.sends:
        for peer in exchange.audience:
            queues[peer, True].append(exchange)
    for exchange in round_.receives:
        queues[exchange.source, False].append(exchange)
    for number in range(max(map(len, queues.values()), default=0)):
        yield {end: queue[number] for end, queue in sorted(queues.items()) if number < len(queue)}


def _view(parameters: Mapping[str, torch.Tensor], where: Slice) -> torch.Tensor:
    parameter = parameters[where.parameter].detach()
    whole = parameter if where.entry is None else parameter[where.entry]
    return whole.narrow(where.axis, where.first, where.length)
