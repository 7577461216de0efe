#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face checkpoint in FP8 as one in bfloat16, streamed; the work is in recipe/weights/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe.weights.cast_cli import main

if __name__ == "__main__":
    sys.exit(main())
