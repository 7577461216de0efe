#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tiny model that has something to learn; the work is in recipe/tiny/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipe.tiny.cli import main

if __name__ == "__main__":
    sys.exit(main())
