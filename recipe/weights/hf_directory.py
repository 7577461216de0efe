# SPDX-License-Identifier: Apache-2.0
"""What a Hugging Face directory holds beside weights: its config.json, and small files that are copied as they are."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from recipe.models.deepseek_v3 import FAMILY as DEEPSEEK_V3
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import INDEX_NAME, is_shard_name
from recipe.weights.inputs import Mark, mark_of
from recipe.weights.wholeness import check_text
from recipe.weights.workspace import MANIFEST

#: The directory of a Megatron checkpoint with config.json and tokenizer, ours and verl's.
HUGGING_FACE = "huggingface"
# Files that are not copied: other forms of the weights, and what is written anew.
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
_OWN = {"config.json", INDEX_NAME, MANIFEST}
# Bytes above which a file that is no weights by its name is not copied: the largest tokenizers have 40 MB.
_LARGE = 64 * 2**20
_TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def dtype_of(config: Mapping[str, Any]) -> str:
    """The weights' type that a config.json names, as safetensors calls it; bfloat16 where they are quantised."""
    named = config.get("dtype", config.get("torch_dtype"))
    types = {torch_name: name for name, torch_name in _TORCH_NAMES.items()}
    return "BF16" if config.get("quantization_config") else types.get(named if isinstance(named, str) else "", "BF16")


def plain_config(config: dict[str, Any], dtype: str, *, keep_mtp: bool = False) -> bytes:
    """The file with `plain_fields`."""
    return (json.dumps(plain_fields(config, dtype, keep_mtp=keep_mtp), indent=2, ensure_ascii=False) + "\n").encode()


def plain_fields(config: Mapping[str, Any], dtype: str, *, keep_mtp: bool = False) -> dict[str, Any]:
    """config.json of unquantised weights in `dtype` (safetensors' name), as verl 0.6.1 accepts it: without multi-token
    prediction, unless that is kept; and of a model_type that the pinned vLLM and transformers know, for Kimi-K2's they
    do not. `recipe.models.families.require_converted` refuses what differs."""
    out = {key: value for key, value in config.items() if key != "quantization_config"}
    # transformers has renamed the key.
    out["dtype" if "dtype" in out else "torch_dtype"] = _TORCH_NAMES[dtype]
    if out.get("model_type") in DEEPSEEK_V3.model_types:
        out["model_type"] = DEEPSEEK_V3.model_types[0]
    if not keep_mtp and ("num_nextn_predict_layers" in out or out.get("model_type") == DEEPSEEK_V3.model_types[0]):
        out["num_nextn_predict_layers"] = 0
    return out


def companions(directory: Path, marks: dict[Path, Mark]) -> list[tuple[str, bytes]]:
    """(name, content) of tokenizer, generation settings, model code, licence: every plain small file that holds no
    weights. Adds their marks.

    Raises WeightsError for one that cannot be read, or that a download left empty, cut, or as a pointer.
    """
    found = []
    for path in _plain_files(directory):
        if _holds_weights(path) or path.name in _OWN or path.stat().st_size > _LARGE:
            continue
        marks[path] = mark_of(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
        check_text(path, content)
        found.append((path.name, content))
    return found


def strays(directory: Path, read: Container[Path]) -> tuple[str, ...]:
    """A remark, or none, about large files and other forms of the weights that are neither read nor copied."""
    left = [path for path in _plain_files(directory) if path not in read and path.name not in _OWN]
    left = [path for path in left if _holds_weights(path) or path.stat().st_size > _LARGE]
    if not left:
        return ()
    names = ", ".join(path.name for path in left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    return (f"neither read nor copied: {names} ({sum(path.stat().st_size for path in left)} bytes)",)


def _plain_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))


def _holds_weights(path: Path) -> bool:
    return path.suffix in _WEIGHTS or path.name.endswith(".index.json") or is_shard_name(path.name)
