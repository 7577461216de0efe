# SPDX-License-Identifier: Apache-2.0
"""recipe_with_stand_in.py -m recipe ...: the recipe's command line with a stand-in for the trainer and its inputs.

Everything about the cluster is real; in place of verl's driver a few lines join its Ray and write metrics.
"""

from __future__ import annotations

import sys
from pathlib import Path

from recipe.__main__ import main
from recipe.launch import drive
from recipe.runfile.derive import Inputs
from recipe.runfile.overrides import DRIVER

DRIVER[:] = [str(Path(__file__).with_name("stand_in_trainer.py"))]
drive.prepare = lambda config, say, log: Inputs(
    model=Path("/none/model"), checkpoint=Path("/none/checkpoint"), train=Path("/none/train.parquet"),
    validation=Path("/none/test.parquet"), prompt_tokens=16,
)  # fmt: skip

sys.exit(main(sys.argv[3:]))
