# SPDX-License-Identifier: Apache-2.0
"""Hugging Face -> Megatron's legacy checkpoint: a `model_optim_rng.pt` for every rank, as MindSpeed-LLM loads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from recipe.weights import key_maps
from recipe.weights.cast import check_quantisation
from recipe.weights.hf_checkpoint import open_checkpoint
from recipe.weights.hf_directory import strays
from recipe.weights.job import Job, OutputFile, digests
from recipe.weights.job_cli import Planned
from recipe.weights.legacy_layout import ITERATION, TRACKER, file_name, ranks
from recipe.weights.legacy_options import LegacyOptions
from recipe.weights.legacy_parts import RankParts
from recipe.weights.model_sources import sources_of

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
    check_quantisation(checkpoint)
    layout = key_maps.layout_of(config, source / "config.json")
    every_rank = ranks(options, config)
    sources, dropped = sources_of(checkpoint, layout)
    files = [RankFile(file_name(rank, options), RankParts(rank, options, config, sources)) for rank in every_rank]
    # Sizes need every tensor of every rank: what does not fit together is found here, before anything is written.
    sizes = [file.nbytes for file in files]
    job = Job(
        tool=TOOL,
        input=source,
        output=output,
        **digests(TOOL, {**asdict(options), "config": config}, checkpoint.tensors.values(), checkpoint.marks),
        files=files,
        finish=lambda: [(TRACKER, str(ITERATION).encode())],
        marks=checkpoint.marks,
        small_bytes=200 * len(every_rank),
        only_plan=checkpoint.only_plan,
    )
    read = [entry for tensor_source in sources.values() for entry in tensor_source.entries]
    remarks = [f"{len(files)} ranks, files of {min(sizes)} to {max(sizes)} bytes"]
    if dropped:
        remarks.append(f"{len(dropped)} tensors left behind (multi-token prediction, rotary buffers)")
    remarks.extend(strays(source, checkpoint.marks))
    return Planned(job, len(read), sum(entry.nbytes for entry in read), tuple(remarks))
