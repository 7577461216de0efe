# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face checkpoint in FP8 as one in bfloat16: shard by shard, with a config and an index of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from recipe.models.config_values import shown
from recipe.models.families import FAMILIES, LACKING
from recipe.weights import fp8, key_maps
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import HfCheckpoint, open_checkpoint
from recipe.weights.hf_directory import companions, plain_config, strays
from recipe.weights.hf_output import OutTensor, index_file, safetensors_file
from recipe.weights.job import Copy, Job, digests
from recipe.weights.job_cli import Planned
from recipe.weights.model_sources import sources_of
from recipe.weights.source import FP8, Source, make_sources

TOOL = "fp8_cast_bf16"
_CONFIG_BYTES = 16 * 1024
_INDEX_BYTES_EACH = 160


def plan_cast(source: Path, output: Path, *, keep_mtp: bool = False) -> Planned:
    """Read the headers of `source` and lay out `output`; no tensor is read.

    keep_mtp: keep the multi-token-prediction layers, those from `num_hidden_layers` on, which nothing here trains.
    Raises WeightsError for input that cannot be used.
    """
    checkpoint = open_checkpoint(source)
    if not any(entry.dtype == FP8 for entry in checkpoint.tensors.values()):
        raise WeightsError(f"{source}: holds no FP8 tensor; there is nothing to cast")
    check_quantisation(checkpoint)
    # Whatever nothing here describes is cast as it is: FP8 is FP8.
    if checkpoint.config.get("model_type") in (*FAMILIES, *LACKING):
        sources_of(checkpoint, key_maps.layout_of(checkpoint.config, source / "config.json"))
    sources = make_sources(checkpoint.tensors)
    beyond = mtp_tensors(checkpoint)
    kept = [tensor_source for name, tensor_source in sources.items() if keep_mtp or name not in beyond]
    files: dict[str, list[OutTensor]] = {}
    for tensor_source in kept:
        tensor = OutTensor(
            tensor_source.name,
            tensor_source.dtype,
            tensor_source.shape,
            (Copy(tensor_source, 0, tensor_source.nbytes),),
        )
        files.setdefault(tensor_source.entry.file.name, []).append(tensor)
    copied = companions(source, checkpoint.marks)
    config = plain_config(checkpoint.config, "BF16", keep_mtp=keep_mtp)
    options = {"keep_mtp": keep_mtp, "config": config.decode()}
    job = Job(
        tool=TOOL,
        input=source,
        output=output,
        **digests(TOOL, options, checkpoint.tensors.values(), checkpoint.marks, copied),
        files=[safetensors_file(name, files[name]) for name in sorted(files)],
        finish=lambda: [*copied, ("config.json", config), index_file(files)],
        marks=checkpoint.marks,
        small_bytes=sum(len(content) for _, content in copied) + _CONFIG_BYTES + _INDEX_BYTES_EACH * len(kept),
        only_plan=checkpoint.only_plan,
    )
    read = [entry for tensor_source in kept for entry in tensor_source.entries]
    remarks = (*_remarks(kept, beyond, sources, keep_mtp), *strays(source, checkpoint.marks))
    return Planned(job, len(read), sum(entry.nbytes for entry in read), remarks)


def check_quantisation(checkpoint: HfCheckpoint) -> None:
    """Raises WeightsError for a quantization_config that says anything but FP8 e4m3 in blocks of 128x128."""
    settings = checkpoint.config.get("quantization_config")
    if settings is None:
        return
    if not any(entry.dtype == FP8 for entry in checkpoint.tensors.values()):
        raise WeightsError(
            f"{checkpoint.directory}/config.json: has a quantization_config, and no tensor is {FP8}; is it another "
            "checkpoint's? take the entry out"
        )
    blocks = [fp8.BLOCK, fp8.BLOCK]
    expected: dict[str, Any] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": blocks}
    if not isinstance(settings, dict):
        raise WeightsError(f"{checkpoint.directory}/config.json: quantization_config is no object")
    for key, value in expected.items():
        if settings.get(key, value if key == "fmt" else None) != value:
            raise WeightsError(
                f"{checkpoint.directory}/config.json: quantization_config has {key} {shown(settings.get(key))}; "
                f"only {value!r} is known here"
            )


def mtp_tensors(checkpoint: HfCheckpoint) -> frozenset[str]:
    """Names of the tensors of the multi-token-prediction layers: those numbered from `num_hidden_layers` on.

    Raises WeightsError for layers that config.json does not account for.
    """
    layers = _count(checkpoint, "num_hidden_layers")
    extra = _count(checkpoint, "num_nextn_predict_layers", absent=0)
    names = set()
    for name, entry in checkpoint.tensors.items():
        number = re.match(r"model\.layers\.(\d+)\.", name)
        if number and int(number[1]) >= layers:
            if int(number[1]) >= layers + extra:
                raise WeightsError(
                    f"{entry.where}: config.json has {layers} layers and {extra} for multi-token prediction; "
                    "is it another model's?"
                )
            names.add(name)
    return frozenset(names)


def _count(checkpoint: HfCheckpoint, key: str, absent: int | None = None) -> int:
    value = checkpoint.config.get(key)
    value = absent if value is None else value
    if type(value) is not int or value < 0:
        raise WeightsError(f"{checkpoint.directory}/config.json: {key} is {shown(value)}; expected a whole number")
    return value


def _remarks(kept: list[Source], beyond: frozenset[str], sources: dict[str, Source], keep_mtp: bool) -> list[str]:
    cast = [tensor_source for tensor_source in kept if tensor_source.scale]
    lines = [f"cast: {len(cast)} FP8 tensors; copied: {len(kept) - len(cast)}"]
    left_out = [sources[name] for name in beyond if name in sources]
    if left_out and not keep_mtp:
        nbytes = sum(tensor_source.nbytes for tensor_source in left_out)
        lines.append(
            f"left out: multi-token prediction, {len(left_out)} tensors, {nbytes} bytes in bfloat16 (--keep-mtp)"
        )
    return lines
