# SPDX-License-Identifier: Apache-2.0
"""What a Hugging Face directory holds beside weights: its config.json, and small files that are copied as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipe.weights.hf_checkpoint import INDEX_NAME
from recipe.weights.workspace import MANIFEST

# Files that are not copied: other forms of the weights, and what is written anew.
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
_OWN = {"config.json", INDEX_NAME, MANIFEST}
_TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def dtype_of(config: dict[str, Any]) -> str:
    """The weights' type that a config.json names, as safetensors calls it; bfloat16 where they are quantised."""
    named = config.get("dtype", config.get("torch_dtype"))
    types = {torch_name: name for name, torch_name in _TORCH_NAMES.items()}
    return "BF16" if config.get("quantization_config") else types.get(named if isinstance(named, str) else "", "BF16")


def plain_config(config: dict[str, Any], dtype: str, *, keep_mtp: bool = False) -> bytes:
    """config.json of unquantised weights in `dtype` (safetensors' name), as verl 0.6.1 accepts it: without multi-token
    prediction, unless that is kept."""
    out = {key: value for key, value in config.items() if key != "quantization_config"}
    # transformers has renamed the key.
    out["dtype" if "dtype" in out else "torch_dtype"] = _TORCH_NAMES[dtype]
    if not keep_mtp and ("num_nextn_predict_layers" in out or out.get("model_type") == "deepseek_v3"):
        out["num_nextn_predict_layers"] = 0
    return (json.dumps(out, indent=2, ensure_ascii=False) + "\n").encode()


def companions(source: Path) -> list[Path]:
    """Tokenizer, generation settings, model code, licence: every plain file that holds no weights."""
    return sorted(
        path
        for path in source.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and path.name not in _OWN
        and path.suffix not in _WEIGHTS
        and not path.name.endswith(".index.json")
    )
