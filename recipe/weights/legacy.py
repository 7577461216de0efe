# SPDX-License-Identifier: Apache-2.0
"""Hugging Face -> Megatron's legacy checkpoint: a `model_optim_rng.pt` for every rank, as MindSpeed-LLM loads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from recipe.weights import key_maps
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import HfCheckpoint, open_checkpoint
from recipe.weights.job import Job, OutputFile, identity_of
from recipe.weights.job_cli import Planned
from recipe.weights.legacy_layout import ITERATION, TRACKER, file_name, rank_tensors, ranks
from recipe.weights.legacy_options import LegacyOptions
from recipe.weights.legacy_parts import RankParts, dtype_of
from recipe.weights.source import Source, make_sources
from recipe.weights.torch_pickle import STORAGE_CLASS

TOOL = "hf-to-legacy"


@dataclass(frozen=True)
class RankFile(OutputFile):
    """The file of a rank; its size is worked out once."""

    @cached_property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


def plan(source: Path, output: Path, options: LegacyOptions) -> Planned:
    """The job that converts `source` (FP8 or BF16), from headers alone.

    Raises WeightsError for options that the model contradicts, and for a checkpoint that is not whole.
    """
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    every_rank = ranks(options, config)
    sources, dropped = _sources(checkpoint)
    for rank in every_rank[:: options.tensor * options.expert]:
        for tensor in rank_tensors(rank, options, config):
            dtype_of(tensor, sources)
    job = Job(
        tool=TOOL,
        input=source,
        output=output,
        identity=identity_of(TOOL, checkpoint.tensors.values(), {**asdict(options), "config": config}),
        files=[RankFile(file_name(rank, options), RankParts(rank, options, config, sources)) for rank in every_rank],
        finish=lambda: [(TRACKER, str(ITERATION).encode())],
        small_bytes=200 * len(every_rank),
    )
    read = [checkpoint.tensors[name] for source in sources.values() for name in _names(source)]
    remark = f"{dropped} tensors left behind (multi-token prediction, rotary buffers)"
    return Planned(job, len(read), sum(entry.nbytes for entry in read), (remark,) if dropped else ())


def _names(source: Source) -> list[str]:
    return [source.name] + ([source.scale.name] if source.scale else [])


def _sources(checkpoint: HfCheckpoint) -> tuple[Mapping[str, Source], int]:
    """The tensors of the model as config.json describes it, and how many others (droppable ones) there are."""
    layout = key_maps.layout_of(checkpoint.config, checkpoint.directory / "config.json")
    found = make_sources(checkpoint.tensors)
    sources: dict[str, Source] = {}
    for place in layout.places:
        source = found.get(place.hf_name)
        if source is None:
            raise WeightsError(
                f"{checkpoint.directory}: no tensor {place.hf_name} in any shard; config.json says the model has it"
            )
        if source.shape != place.hf_shape:
            raise WeightsError(f"{source.where} is {list(source.shape)}, config.json makes it {list(place.hf_shape)}")
        if source.dtype not in STORAGE_CLASS:
            known = ", ".join(STORAGE_CLASS)
            raise WeightsError(f"{source.where} is {source.dtype}; known are FP8 with scales and {known}")
        sources[source.name] = source
    dropped = set(key_maps.droppable(found, checkpoint.config))
    unknown = sorted(set(found) - set(sources) - dropped)
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise WeightsError(f"{found[unknown[0]].where}{more} has no place in the model of config.json")
    return sources, len(dropped)
