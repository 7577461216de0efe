#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face weights (BF16 or FP32) to a Megatron torch_dist checkpoint, without building the model."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from recipe.weights.cli import main

if __name__ == "__main__":
    sys.exit(main())
