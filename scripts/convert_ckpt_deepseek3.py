#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A file for each rank, under the name that MindSpeed-LLM has for it; the work is in recipe/weights/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe.weights.convert_ckpt import main

if __name__ == "__main__":
    sys.exit(main())
