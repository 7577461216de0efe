#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""MATH-lighteval to Parquet for verl, under the name that Pai-Megatron-Patch has; the work is in recipe/data/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe.data.math_lighteval import main

if __name__ == "__main__":
    sys.exit(main())
