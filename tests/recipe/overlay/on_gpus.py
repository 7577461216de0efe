# SPDX-License-Identifier: Apache-2.0
"""`on_gpus.py RUN.toml`: for each patch with a shared condition, whether it holds in a run's process on GPUs.

The conditions are the patches' own, in the environment that follows from the run file. A machine with GPUs has neither
torch_npu nor vLLM-Ascend nor MindSpeed, and has Transformer Engine: so says `importlib.util.find_spec` here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from pathlib import Path

from recipe.audit.declarations import collect, statement
from recipe.overlay import Declaration
from recipe.overlay.declaration import SOURCE
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run

ABSENT = ("torch_npu", "vllm_ascend", "mindspeed")
_find_spec = importlib.util.find_spec


def on_a_machine_with_gpus(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
    """`importlib.util.find_spec` there."""
    top = name.partition(".")[0]
    if top in ABSENT:
        return None
    return importlib.machinery.ModuleSpec(name, None) if top == "transformer_engine" else _find_spec(name, package)


def condition_of(patch: Declaration) -> tuple[str, str] | None:
    """The module and the name of a patch's condition; None where no other patch has the same, or it has none."""
    tree = ast.parse(patch.file.read_text(encoding="utf-8"))
    calls = [line for line in statement(patch, tree).decorator_list if isinstance(line, ast.Call)]
    names = [word.value for call in calls for word in call.keywords if word.arg == "when"]
    name = names[0].id if names and isinstance(names[0], ast.Name) else None
    for node in tree.body if name else ():
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            return node.module or "", name
    return None


def main() -> None:
    keys = {patch.id: condition_of(patch) for patch in collect() if patch.kind != SOURCE}
    found = {key: getattr(importlib.import_module(key[0]), key[1]) for key in set(keys.values()) if key}
    os.environ.update(derive_run(load(Path(sys.argv[1]))).environment)
    importlib.util.find_spec = on_a_machine_with_gpus
    print(json.dumps({patch: bool(found[key].function()) for patch, key in keys.items() if key}))


if __name__ == "__main__":
    main()
