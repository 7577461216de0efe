# SPDX-License-Identifier: Apache-2.0
"""python launch_with.py CONFIG.toml NAME STEPS OVERRIDES.json: the launcher, with some of verl's settings changed."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from recipe.launch import overrides
from recipe.launch.config import load
from recipe.launch.errors import LaunchError
from recipe.launch.run import launch


def main(file: Path, name: str, steps: int, changes: dict[str, Any]) -> None:
    derived = overrides._trainer
    overrides._trainer = lambda *arguments: derived(*arguments) | changes
    config = load(file)
    launch(dataclasses.replace(config, run=dataclasses.replace(config.run, name=name, steps=steps)), file)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
    except LaunchError as error:
        sys.exit(f"error: {error}")
