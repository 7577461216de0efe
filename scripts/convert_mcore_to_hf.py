#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Megatron checkpoint after training to Hugging Face weights; the work is in recipe/weights/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from recipe.weights.mcore_to_hf import main

if __name__ == "__main__":
    sys.exit(main())
