# SPDX-License-Identifier: Apache-2.0
"""W: the model's directory and its Megatron checkpoint, read by their headers only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad, doubtful
from recipe.models.architecture import differing
from recipe.models.families import describe, require_converted
from recipe.models.family import ModelError
from recipe.models.published import KNOWN
from recipe.runfile.errors import ConfigError
from recipe.tokenizer.ranks import tokenizer_json_fix
from recipe.weights.errors import WeightsError

CONVERT = "make it with scripts/convert_hf_to_mcore.py"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@check(
    "W001", "the model's directory is there, with its config.json", needs="files",
    why="every process reads config.json and the tokenizer from it, on every node",
    fix="correct [model] path, or copy the directory to this node (config.json and tokenizer are enough)",
)  # fmt: skip
def _directory(facts: Facts) -> Iterator[Complaint]:
    file = facts.model_directory / "config.json"
    if facts.model_directory.exists() and not facts.model_directory.is_dir():
        yield bad(f"[model] path = {facts.model_directory} is not a directory", "a Hugging Face directory")
    elif file.is_file():
        try:
            _ = facts.model
        except CannotTell as reason:
            yield bad(str(reason), "a Hugging Face config.json")
    elif facts.node or facts.model_directory.is_dir():
        yield bad(f"{file} is not there", "a Hugging Face directory")
    else:
        raise CannotTell(f"{file} is not on this machine")


@check(
    "W002", "config.json is that of plain weights: no quantisation, no multi-token prediction", needs="files",
    stops_derivation=True,
    why="verl 0.6.1 refuses num_nextn_predict_layers above 0 and a quantization_config; a config.json copied over from "
        "the FP8 release brings both back",
    fix="take the config.json that a converter of the weights has written, docs/WEIGHTS.md",
)  # fmt: skip
def _converted(facts: Facts) -> Iterator[Complaint]:
    model = facts.model
    try:
        require_converted(model)
    except ModelError as error:
        yield bad(f"config.json: {error}", "what verl trains and vLLM loads as it stands")
    if model.get("torch_dtype") not in (None, "bfloat16"):
        yield doubtful(f"torch_dtype = {model['torch_dtype']}", "bfloat16")


@check(
    "W003", "the model is one that can be trained here", needs="files", stops_derivation=True,
    why="verl configures other routers and rope scalings without an error, and trains them wrongly; models of other "
        "families end at the first worker",
    fix="take a model of a family in docs/WEIGHTS_MEGATRON.md, with its own config.json",
)  # fmt: skip
def _described(facts: Facts) -> Iterator[Complaint]:
    model = facts.model
    try:
        describe(model)
    except ModelError as error:
        yield bad(f"config.json: {error}", "a model that Megatron-core and vLLM compute as config.json says")


@check(
    "W004", "config.json has the sizes that the run file names", needs="files", stops_derivation=True,
    why="[model] architecture is what a laptop plans with: another model than planned would be run",
    fix="correct [model] architecture or [model] path",
)  # fmt: skip
def _sizes(facts: Facts) -> Iterator[Complaint]:
    planned = KNOWN.get(facts.config.model.architecture or "")
    if planned is None:
        raise NoMatter
    _ = facts.model
    actual = facts.architecture
    if actual != planned:
        names = differing(actual, planned)
        shown = ", ".join(f"{name} {getattr(actual, name, 'absent')}" for name in names)
        wanted = ", ".join(f"{name} {getattr(planned, name, 'absent')}" for name in names)
        yield bad(f"{shown} in config.json", f"{wanted} of {facts.config.model.architecture}")


@check(
    "W005", "the tokenizer is there, and a chat template", needs="files",
    why="verl renders every prompt with the chat template of the run file or of the tokenizer, and has none of its own",
    fix="copy tokenizer.json and tokenizer_config.json of the original model into [model] path; correct [data] "
        "chat_template",
)  # fmt: skip
def _tokenizer(facts: Facts) -> Iterator[Complaint]:
    directory = facts.here(facts.model_directory, "the model's directory")
    missing = [name for name in TOKENIZER_FILES if not (directory / name).is_file()]
    if missing:
        yield bad(f"no {' and no '.join(missing)} in {directory}", "both", tokenizer_json_fix(directory))
        return
    try:
        _ = facts.derived.chat_template
    except ConfigError as error:
        yield bad(str(error), "a tokenizer_config.json and a chat template that can be read")


@check(
    "W006", "every token of the tokenizer has an embedding", needs="files",
    why="a token beyond vocab_size is an index out of bounds on the die, far from its cause",
    fix="take tokenizer and config.json from one model",
)  # fmt: skip
def _vocabulary(facts: Facts) -> Iterator[Complaint]:
    file = facts.here(facts.model_directory / "tokenizer.json", "the tokenizer")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        ids = [*content["model"]["vocab"].values(), *(token["id"] for token in content.get("added_tokens", []))]
        highest = max(ids)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield bad(f"{file} cannot be read ({error!r})", "a tokenizer.json of the tokenizers library")
        return
    size = facts.model.get("vocab_size")
    if isinstance(size, int) and highest >= size:
        yield bad(f"token {highest} with vocab_size = {size}", f"tokens below {size}")
    end = facts.model.get("eos_token_id")
    if isinstance(end, int) and end not in ids:
        yield bad(f"eos_token_id = {end} in config.json", "a token of the tokenizer")


def _checkpoint(facts: Facts) -> Path:
    directory = facts.config.model.checkpoint
    if directory is None:
        raise NoMatter
    return Path(directory).expanduser()


@check(
    "W007", "the Megatron checkpoint is there", needs="files",
    why="verl loads it in every rank, after the model was built; without it nothing has weights",
    fix="correct [model] checkpoint, or " + CONVERT,
)  # fmt: skip
def _checkpoint_directory(facts: Facts) -> Iterator[Complaint]:
    directory = _checkpoint(facts)
    if not directory.is_dir():
        if not facts.node and not directory.exists():
            raise CannotTell(f"{directory} is not on this machine")
        yield bad(f"[model] checkpoint = {directory} is not a directory", "a torch_dist checkpoint")


@check(
    "W008", "the checkpoint is of the kind that verl 0.6.1 loads: torch_dist", needs="files",
    why="published tools write Megatron's per-rank files and Hugging Face's safetensors under the same option name; "
        "verl reads the directory that itself holds metadata.json",
    fix=CONVERT + " (per-rank files belong to MindSpeed-LLM)",
)  # fmt: skip
def _kind(facts: Facts) -> Iterator[Complaint]:
    directory = facts.here(_checkpoint(facts), "the checkpoint")
    if not directory.is_dir():
        raise CannotTell(f"{directory} is not a directory (W007)")
    kind = kind_of(directory)
    if kind != "torch_dist":
        inner = [file.parent for file in sorted(directory.glob("*/metadata.json"))]
        fix = f"set [model] checkpoint to {inner[0]}" if inner else None
        yield bad(f"{directory} holds {kind}", "metadata.json, common.pt, .metadata and *.distcp files", fix)


def kind_of(directory: Path) -> str:
    """What a directory holds, in words; "torch_dist" for a checkpoint that verl 0.6.1 loads."""
    metadata = directory / "metadata.json"
    if metadata.is_file():
        try:
            backend: Any = json.loads(metadata.read_text(encoding="utf-8")).get("sharded_backend")
        except (OSError, ValueError, AttributeError):
            return "a metadata.json that cannot be read"
        return "torch_dist" if backend == "torch_dist" else f"a checkpoint of the backend {backend!r}"
    if (directory / "latest_checkpointed_iteration.txt").is_file() or any(directory.glob("**/mp_rank_*")):
        return "Megatron's per-rank files (legacy)"
    if any(directory.glob("*.safetensors")):
        return "safetensors, a Hugging Face model"
    if any(directory.glob("*.distcp")):
        return "the files of a conversion that did not end (no metadata.json)"
    return "no checkpoint"


@check(
    "W009", "the checkpoint is whole", needs="files",
    why="a conversion that was interrupted, or a copy that was, leaves files out or short",
    fix="copy it again, or " + CONVERT,
)  # fmt: skip
def _complete(facts: Facts) -> Iterator[Complaint]:
    directory = facts.here(_checkpoint(facts), "the checkpoint")
    if kind_of(directory) != "torch_dist":
        raise CannotTell("it is of another kind (W008)")
    for name in (".metadata", "common.pt"):
        if not (directory / name).is_file():
            yield bad(f"{directory} has no {name}", "a conversion that ended")
            return
    try:
        tensors = facts.stored_tensors
    except WeightsError as error:
        yield bad(str(error), "a .metadata that can be read")
        return
    ends: dict[str, int] = {}
    for tensor in tensors.values():
        for chunk in tensor.chunks:
            ends[chunk.blob.file] = max(ends.get(chunk.blob.file, 0), chunk.blob.offset + chunk.blob.nbytes)
    for name, end in sorted(ends.items()):
        file = directory / name
        size = file.stat().st_size if file.is_file() else None
        if size is None or size < end:
            yield bad(f"{name} " + ("is missing" if size is None else f"has {size} bytes"), f"{end} bytes or more")
            return


@check(
    "W010", "the checkpoint is of this model", needs="files",
    why="names and shapes are compared when the ranks load it, after all else is up; surplus layers are "
        "not noticed at all",
    fix="correct [model] checkpoint or path, or " + CONVERT,
)  # fmt: skip
def _of_this_model(facts: Facts) -> Iterator[Complaint]:
    directory = facts.here(_checkpoint(facts), "the checkpoint")
    if kind_of(directory) != "torch_dist":
        raise CannotTell("it is of another kind (W008)")
    try:
        tensors = facts.stored_tensors
    except WeightsError as error:
        raise CannotTell(str(error)) from None
    for place in facts.megatron_layout.places:
        # A checkpoint that Megatron-core saved itself has one of the spellings of a name, a converted one has all.
        shapes = [tensors[name].shape for name in place.names if name in tensors]
        if not shapes or any(shape != place.shape for shape in shapes):
            state = f"is {list(shapes[0])}" if shapes else "is not there"
            yield bad(f"{place.names[0]} {state}", f"{list(place.shape)}, by config.json")
            return
    if facts.beyond_the_model in tensors:
        yield bad(f"the checkpoint has {facts.beyond_the_model}", f"{facts.architecture.layers} layers")


@check(
    "W011", "the safetensors files are whole, in bfloat16", needs="files",
    why="where no checkpoint is named, one is made from them at the launch",
    fix="download the files again; cast FP8 weights with scripts/fp8_cast_bf16.py first",
)  # fmt: skip
def _safetensors(facts: Facts) -> Iterator[Complaint]:
    from recipe.weights.hf_checkpoint import open_checkpoint

    if facts.config.model.checkpoint is not None or facts.config.model.kind != "path":
        raise NoMatter
    directory = facts.here(facts.model_directory, "the model's directory")
    try:
        tensors = open_checkpoint(directory).tensors
    except WeightsError as error:
        yield bad(str(error), "a Hugging Face checkpoint")
        return
    quantised = [tensor.where for tensor in tensors.values() if tensor.dtype.startswith("F8")]
    if quantised:
        yield bad(f"{len(quantised)} tensors in FP8, such as {quantised[0]}", "bfloat16")


@check(
    "W012", "the model brings no code of its own that it needs", needs="files", stops_derivation=True,
    why="we never run it (no trust_remote_code); a model that only its own code can load fails at the tokenizer",
    fix="take auto_map out; W003 says whether the libraries know the model_type",
)  # fmt: skip
def _code(facts: Facts) -> Iterator[Complaint]:
    _ = facts.model_directory
    if facts.model.get("auto_map"):
        yield doubtful("config.json has an auto_map, which is not followed", "none")
