# SPDX-License-Identifier: Apache-2.0
"""A rank that holds its part of a numbered model and is sent, by gloo, what its engine needs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from tests.verl_patches.utils.routes.engines import (
    PADDING,
    Array,
    TinySizes,
    actor_parameters,
    model,
    rollout_parameters,
)
from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout
from verl_patches.utils.routes.routes import Routes
from verl_patches.utils.routes.transport import RoutesDisagree, Transport, agree

# float32 numbers every element of a model as small as these exactly.
TYPES = {2: torch.bfloat16, 4: torch.float32}


def layouts(job: dict[str, Any]) -> tuple[TinySizes, ActorLayout, RolloutLayout]:
    actor = job["actor"] | {"stage_layers": tuple(job["actor"]["stage_layers"])}
    return TinySizes(**job["sizes"]), ActorLayout(**actor), RolloutLayout(**job["rollout"])


def run(job: dict[str, Any], rank: int) -> None:
    dist.init_process_group("gloo")
    try:
        globals()[job["name"]](job, rank)
    finally:
        dist.destroy_process_group()


def tensor(array: Array, seed: int, wanted: torch.dtype) -> torch.Tensor:
    """The value of each element after an update: float32 its number and the seed; bfloat16 made of both."""
    numbers = torch.from_numpy(array.copy())
    if wanted == torch.float32:
        return (numbers + seed).float()
    return torch.sin(numbers.double() * (seed + 1)).to(torch.bfloat16)


def of_actor(name: str, array: Array, seed: int, weight_type: torch.dtype) -> torch.Tensor:
    return tensor(array, seed, torch.float32 if name.endswith("expert_bias") else weight_type)


def of_rollout(name: str, array: Array, seed: int, weight_type: torch.dtype) -> torch.Tensor:
    """As verl's loop brings it: the actor's value, in the rollout's type; zero where the vocabulary is padded."""
    bias = name.endswith("e_score_correction_bias")
    value = tensor(array, seed, torch.float32 if bias else weight_type)
    value = value.float() if ".mlp.gate." in name else value
    value[torch.from_numpy(array == PADDING)] = 0
    return value


def moves(job: dict[str, Any], rank: int) -> None:
    """Several syncs, each of which must leave the rollout exactly what the actor has by then."""
    sizes, actor_layout, rollout_layout = layouts(job)
    weight_type = TYPES[job["item_bytes"]]
    routes = Routes(sizes, actor_layout, rollout_layout, job["buffer_bytes"], job["item_bytes"])
    transport = Transport(routes, rank, weight_type)
    agree(transport.plan, "cpu")
    tensors = model(sizes)
    held = actor_parameters(tensors, sizes, actor_layout, rank)
    needed = rollout_parameters(tensors, sizes, rollout_layout, rank)
    for seed in range(job["syncs"]):
        actor = {name: of_actor(name, array, seed, weight_type) for name, array in held.items()}
        expected = {name: of_rollout(name, array, seed, weight_type) for name, array in needed.items()}
        rollout = {name: torch.full_like(value, torch.nan) for name, value in expected.items()}
        assert transport.move(actor, rollout) == set(expected)
        for name, value in expected.items():
            assert rollout[name].dtype == value.dtype and torch.equal(rollout[name], value), (seed, name)


def disagrees(job: dict[str, Any], rank: int) -> None:
    """A rank that was given another buffer, or works its part out otherwise, keeps every rank from sending."""
    sizes, actor_layout, rollout_layout = layouts(job)
    odd = rank == job["odd"]
    routes = Routes(sizes, actor_layout, rollout_layout, job["buffer_bytes"] + (8 if odd and job["given"] else 0))
    plan = routes.of_rank(rank)
    if odd and not job["given"]:
        plan = routes.of_rank((rank + 1) % actor_layout.dies)
    try:
        agree(plan, "cpu")
    except RoutesDisagree as error:
        assert job["message"] in str(error), error
    else:
        raise AssertionError("nobody minded")
