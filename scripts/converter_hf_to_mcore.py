#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face weights to a Megatron checkpoint, under verl's name for it; the work is in recipe/weights/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe.weights.converter import main

if __name__ == "__main__":
    sys.exit(main())
