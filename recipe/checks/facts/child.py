# SPDX-License-Identifier: Apache-2.0
"""Facts that are read in a process of its own: it may import what is heavy, hold what it likes, hang, and crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from typing import Any

from recipe.own_packages import REPOSITORY


def answer_of(module: str, question: Any, deadline_s: float, without: Collection[str] = ()) -> dict[str, Any]:
    """What `python -m module` prints as JSON on its last line, given the question as JSON; or why there is nothing.

    Args:
        module: one of ours.
        question: what it reads.
        deadline_s: how long it may take.
        without: variables of the environment that it does not get.

    Returns: the answer, or {"problem": text}.
    """
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(
            [sys.executable, "-m", module], input=json.dumps(question), env=environment, capture_output=True, text=True,
            timeout=deadline_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"problem": f"no answer within {deadline_s:.0f} s"}
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        answer = None
    if isinstance(answer, dict):
        return answer
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    return {"problem": lines[-1].strip()}
