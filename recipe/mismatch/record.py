# SPDX-License-Identifier: Apache-2.0
"""What one process of one engine computed in one step, as a safetensors file.

`n` tokens are those that this process put through its layers; `rows` the answers of its batch. A position counts from
0, without padding, over prompt and answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recipe.runfile.errors import LaunchError

ROLLOUT, ACTOR = "rollout", "actor"
# By layer: the residual stream behind it [n, hidden size]; of layers with experts the router's logits [n, experts],
# which experts it chose [n, experts], and the bias that is added to the scores for the choice alone [experts].
HIDDEN, LOGITS, CHOSEN, BIAS = PER_LAYER = ("hidden", "logits", "chosen", "bias")
# [n]: the row of each token in the batch, its position, and the token.
ROW, POSITION, TOKEN = "row", "position", "token"
# [rows, 2]: the rollout's rank that sampled an answer, and the row that it had there.
ORIGIN = "origin"
# The same in verl's batch, as the texts `rank:row`: what carries an answer from the rollout to the actor's process.
ORIGIN_KEY = "rollout_origin"
# Of the actor only. [rows, length]: the tokens, [rows]: how many there are, and how many are the prompt's.
TOKENS, LENGTH, PROMPT_LENGTH = "tokens", "length", "prompt_length"
# Of the actor only, [rows, longest answer]: log-probabilities of the answers' tokens.
ROLLOUT_LOG_PROBS, ACTOR_LOG_PROBS, REPLAYED_LOG_PROBS = "rollout_log_probs", "actor_log_probs", "replayed_log_probs"
# Of the actor only, []: at how many positions and layers its routers did not take the experts that were replayed.
NOT_REPLAYED = "not_replayed"


class RecordError(LaunchError):
    """A record that is missing, damaged, or of another step or batch; the text says which and what to do."""


@dataclass
class LayerOutputs:
    """What the layers of one process put out, pass by pass; joined along the tokens when it is asked for."""

    parts: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    biases: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, name: str, value: torch.Tensor, layer: int | None = None) -> None:
        """Append the values of a pass's tokens: `name` is one of the above, `layer` the layer's number from 0."""
        self.parts.setdefault(name if layer is None else f"{name}.{layer}", []).append(value.detach().to("cpu").clone())

    def set_bias(self, layer: int, value: torch.Tensor | None, experts: int) -> None:
        """Note the bias of a layer's router; None: it has none."""
        bias = torch.zeros(experts) if value is None else value.detach().float().cpu().clone()
        self.biases[f"{BIAS}.{layer}"] = bias

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: torch.cat(parts).contiguous() for name, parts in self.parts.items()} | self.biases


def record_path(directory: Path, engine: str, rank: int) -> Path:
    """The file of one process."""
    return directory / f"{engine}_rank{rank}.safetensors"


def write_record(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a file that is whole as soon as it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    os.replace(partial, path)


def read_records(directory: Path, engine: str) -> list[dict[str, torch.Tensor]]:
    """The records of all processes of an engine, by rank.

    Raises:
        RecordError: there is none, or one cannot be read.
    """
    paths = sorted(directory.glob(f"{engine}_rank*.safetensors"), key=lambda path: int(path.stem.rpartition("rank")[2]))
    if not paths:
        raise RecordError(f"{directory} holds no record of the {engine}; record the step again with --again")
    return [_read(path) for path in paths]


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({error}); record the step again with --again") from None
    return tensors


def layers_of(names: Iterable[str], kind: str) -> list[int]:
    """The numbers of the layers for which there is a tensor of this kind."""
    return sorted(int(name.partition(".")[2]) for name in names if name.partition(".")[0] == kind)
