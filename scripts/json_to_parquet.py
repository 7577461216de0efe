#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""DeepScaleR-schema JSON to Parquet for verl; the work is in recipe/data/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe.data.cli import main

if __name__ == "__main__":
    sys.exit(main())
