# SPDX-License-Identifier: Apache-2.0
"""Megatron `torch_dist` checkpoint (of verl's MegatronCheckpointManager, or ours) -> Hugging Face safetensors."""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from recipe.weights import key_maps
from recipe.weights.dcp_metadata import METADATA, StoredTensor
from recipe.weights.dcp_reader import read_metadata
from recipe.weights.errors import WeightsError
from recipe.weights.gather import Box, ChunkIndex, Gather, Section
from recipe.weights.hf_checkpoint import TensorEntry
from recipe.weights.hf_directory import HUGGING_FACE, companions, plain_config
from recipe.weights.hf_output import OutTensor, index_file, safetensors_file
from recipe.weights.inputs import Mark, mark_of
from recipe.weights.job import Job, digests
from recipe.weights.job_cli import Planned, add_job_arguments, run_tool
from recipe.weights.layout import MegatronLayout, Placement
from recipe.weights.wholeness import check_file_head, check_unfinished, first_hole, read_json
from recipe.weights.workspace import MANIFEST, listed_files

TOOL = "mcore-to-hf"
DESCRIPTION = "Convert a Megatron torch_dist checkpoint into a Hugging Face one, without building the model."
EXAMPLES = """\
examples:
  scripts/convert_mcore_to_hf.py --load-dir runs/NAME/checkpoints/global_step_70/actor --save-dir OUT
  scripts/convert_mcore_to_hf.py --load-dir CHECKPOINT --save-dir OUT --hf-config HF --dry-run
"""
# Largest size of a file, about that of the published ones. Smaller models are cut into _FILES files, so that several
# workers are busy, unless these would be smaller than _LEAST_BYTES.
SHARD_BYTES = 4 * 2**30
_FILES, _LEAST_BYTES = 16, 256 * 2**20


class _ModelNames(Container[str]):
    """The names of a model's tensors; those of the optimizer's states have a prefix before them."""

    def __contains__(self, name: object) -> bool:
        return str(name).startswith(("embedding.", "decoder.", "output_layer."))


def find_checkpoint(directory: Path) -> Path:
    """The directory with the tensors: the one given, or the `dist_ckpt` in it that verl makes."""
    inner = directory / "dist_ckpt"
    return inner if inner.is_dir() and not (directory / "metadata.json").exists() else directory


def find_config(directory: Path, chosen: Path | None) -> Path:
    """The directory with config.json and tokenizer: the one given, or the `huggingface` that verl and we make.

    Raises WeightsError when there is none.
    """
    if chosen is not None:
        return chosen
    if not directory.is_dir():
        raise WeightsError(f"{directory}: no such directory; expected a Megatron checkpoint, or the actor of a run's")
    for place in (directory / HUGGING_FACE, directory.parent / HUGGING_FACE):
        if (place / "config.json").is_file():
            return place
    raise WeightsError(
        f"{directory}: no {HUGGING_FACE}/config.json beside it; give --hf-config a Hugging Face directory"
    )


def _tensors(directory: Path, layout: MegatronLayout) -> list[OutTensor]:
    """Every Hugging Face tensor of the layout, in the order of the layers."""
    stored = read_metadata(directory, _ModelNames())
    if strange := stored.keys() - {name for place in layout.places for name in place.names}:
        raise WeightsError(f"{directory}: holds {min(strange)}, which the model of config.json does not have")
    indices: dict[str, ChunkIndex] = {}
    by_tensor: dict[str, list[Placement]] = {}
    for place in layout.places:
        by_tensor.setdefault(place.hf_name, []).append(place)
    tensors = []
    for hf_name, places in by_tensor.items():
        sections = []
        for place in sorted(places, key=lambda p: p.first):
            name = _stored_name(directory, place, stored)
            index = indices.setdefault(name, ChunkIndex(name, stored[name]))
            box = Box(*place.box(0, place.rows))
            sections.append(Section(name, box, place.leading, index.covering(box)))
        dtype = stored[sections[0].name].dtype
        gather = Gather(hf_name, dtype, tuple(sections), directory)
        tensors.append(OutTensor(hf_name, dtype, places[0].hf_shape, (gather,)))
    return tensors


def _stored_name(directory: Path, place: Placement, stored: dict[str, StoredTensor]) -> str:
    name = next((name for name in place.names if name in stored), None)
    if name is None:
        raise WeightsError(f"{directory}: holds no {' or '.join(place.names)}; config.json says the model has it")
    if stored[name].shape != place.shape:
        raise WeightsError(
            f"{directory}: {name} is {list(stored[name].shape)}, config.json makes it {list(place.shape)}"
        )
    return name


def _shards(tensors: Sequence[OutTensor]) -> dict[str, list[OutTensor]]:
    shards: list[list[OutTensor]] = [[]]
    size = 0
    most = min(SHARD_BYTES, max(_LEAST_BYTES, sum(tensor.nbytes for tensor in tensors) // _FILES))
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > most:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    count = len(shards)
    return {f"model-{n + 1:05d}-of-{count:05d}.safetensors": shard for n, shard in enumerate(shards)}


def _entries(directory: Path, tensors: Iterable[OutTensor], marks: dict[Path, Mark]) -> list[TensorEntry]:
    """The archives that are read, and `.metadata`. Adds the files' marks.

    Raises WeightsError for files that are not there, too short, or not what they are named.
    """
    entries = [entry for tensor in tensors for part in tensor.parts for entry in part.reads]
    ends: dict[Path, TensorEntry] = {}
    for entry in entries:
        path = entry.file
        if path not in ends or entry.begin > ends[path].begin:
            ends[path] = entry
    for path, last in ends.items():
        marks[path] = mark_of(path)
        check_file_head(path)
        if (size := marks[path].size) < (end := last.begin + last.nbytes):
            raise WeightsError(f"{path}: has {size} bytes, {last.name} ends at byte {end} of it")
        if (hole := first_hole(path, 0, end)) is not None:
            raise WeightsError(f"{path}: nothing was ever written from byte {hole} on (a hole); copy it again")
    metadata = directory / METADATA
    return [*entries, TensorEntry(METADATA, "U8", (), metadata, 0, marks[metadata].size)]


def _check_directory(directory: Path) -> None:
    """Require that the checkpoint has come whole as far as its small files tell: no notes of a downloader, no pointers,
    and, where our tools made it, files of the sizes in its manifest. Raises WeightsError."""
    own = ("metadata.json", METADATA, "common.pt")
    check_unfinished(directory, lambda name: name in own or name.endswith(".distcp"))
    for name in own[:2]:
        if (directory / name).is_file():
            check_file_head(directory / name)
    if not (directory / MANIFEST).is_file():
        return
    for name, nbytes, crc in listed_files(directory):
        path = directory / name
        # The description is the user's to change: a chat template, generation settings.
        if "/" in name:
            continue
        if (size := mark_of(path).size) != nbytes:
            raise WeightsError(f"{path}: has {size} bytes, {MANIFEST} says {nbytes}; copy it again")
        if name in own and zlib.crc32(path.read_bytes()) != crc:
            raise WeightsError(f"{path}: its checksum is not that of {MANIFEST}; copy it again")


def _main_dtype(tensors: Iterable[OutTensor]) -> str:
    """The dtype of the model's matrices; where they differ, the widest of theirs."""
    dtypes = {tensor.dtype for tensor in tensors if len(tensor.shape) > 1}
    return next(dtype for dtype in ("F32", "F16", "BF16") if dtype in dtypes)


def plan(source: Path, output: Path, hf_config: Path | None = None) -> Planned:
    """The job that converts `source`, from `.metadata` alone.

    source: the checkpoint, or the directory that verl makes around it; hf_config: directory with config.json and the
    tokenizer's files, which are copied. Raises WeightsError for what is no complete checkpoint of that model.
    """
    directory = find_checkpoint(source)
    described = find_config(directory, hf_config)
    _check_directory(directory)
    own = described / "config.json", directory / METADATA
    marks = {file: mark_of(file) for file in own if file.exists()}
    config = read_json(described / "config.json", "config.json")
    tensors = _tensors(directory, key_maps.layout_of(config, described / "config.json"))
    entries = _entries(directory, tensors, marks)
    shards = _shards(tensors)
    content = plain_config(config, _main_dtype(tensors))
    copied = companions(described, marks)
    index = index_file(shards)
    job = Job(
        tool=TOOL,
        input=directory,
        output=output,
        **digests(TOOL, {"config": content.decode(), "shard": SHARD_BYTES}, entries, marks, copied),
        files=[safetensors_file(name, shard) for name, shard in shards.items()],
        finish=lambda: [*copied, ("config.json", content), index],
        marks=marks,
        small_bytes=sum(len(text) for _, text in copied) + len(content) + len(index[1]),
    )
    if os.path.commonpath((described.resolve(), output.resolve())) == str(output.resolve()):
        raise WeightsError(f"{output}: holds the --hf-config {described}; choose another output")
    remark = f"config.json, tokenizer and other small files are {described}'s"
    return Planned(job, len(entries) - 1, sum(entry.nbytes for entry in entries[:-1]), (remark,))


def main(arguments: list[str] | None = None) -> int:
    """The command line of scripts/convert_mcore_to_hf.py; returns the exit code."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    parser.add_argument(
        "--load-dir", type=Path, required=True, metavar="CHECKPOINT",
        help="torch_dist checkpoint, or the actor directory of a step in which verl has saved one",
    )  # fmt: skip
    parser.add_argument("--save-dir", type=Path, required=True, metavar="OUT", help="Hugging Face directory to make")
    parser.add_argument(
        "--hf-config", type=Path, metavar="HF",
        help="directory with config.json and tokenizer (default: `huggingface` in or beside CHECKPOINT)",
    )  # fmt: skip
    add_job_arguments(parser, EXAMPLES)
    options = parser.parse_args(arguments)
    return run_tool(options, lambda: plan(options.load_dir, options.save_dir, options.hf_config))
