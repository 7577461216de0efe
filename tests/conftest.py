# SPDX-License-Identifier: Apache-2.0
"""What every test needs: our packages and the copied upstreams importable, in child processes too, on one thread."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# RECIPE_UPSTREAM lets a working tree borrow another tree's synced sources instead of its own.
UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))

_PATHS = [str(REPO), str(UPSTREAM)]
for _path in reversed(_PATHS):
    if _path not in sys.path:
        sys.path.insert(0, _path)

_inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in _PATHS]
os.environ["PYTHONPATH"] = os.pathsep.join([*_PATHS, *_inherited])
# Two cores are shared with gloo, Ray and the tests' own worker processes: one thread each, always.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# A test that wants a run directory makes its own; one inherited from a shell would be written into.
for _name in ("RECIPE_RUN_DIR", "RECIPE_RUN_ID"):
    os.environ.pop(_name, None)
