#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face weights (FP8 or BF16) to a Megatron checkpoint; the work is in recipe/weights/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from recipe.weights.convert import main

if __name__ == "__main__":
    sys.exit(main())
