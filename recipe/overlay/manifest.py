# SPDX-License-Identifier: Apache-2.0
"""One JSON line per process and patch in `$RECIPE_RUN_DIR/manifest.jsonl`: what is live where.

Fields: time (seconds since the epoch), host, pid, role, patch, target, kind, status (applied | skipped | failed),
reason, fingerprint (the one found), upstream (as declared), version (of the upstream, as installed).  Without
RECIPE_RUN_DIR nothing is written.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import threading
import time
from pathlib import Path

from recipe.overlay.declaration import Declaration

_lock = threading.Lock()
_written: set[tuple[int, str, str]] = set()
# A forked child inherits this module's state, the title and the rank of its parent, but does other work.
_started_as = os.getpid()


def role() -> str:
    """What this process is in the run, as well as it can be told now without importing or starting anything.

    A Ray worker carries its actor's class in its process title, and verl gives its workers a RANK before they start;
    everything else is named after the module or script it runs. A process that one of them has forked is marked as a
    fork.
    """
    if os.getpid() != _started_as:
        return f"fork of {_role(None)}"
    return _role(os.environ.get("RANK"))


def _role(rank: str | None) -> str:
    title = _title()
    if title.startswith("ray::"):
        actor = title.removeprefix("ray::").partition(".")[0].split()[0]
        if actor and actor != "IDLE":
            return f"{actor} rank={rank}" if rank is not None else actor
    in_ray = title.startswith("ray::") or Path(sys.argv[0] if sys.argv else "").name == "default_worker.py"
    if rank is not None:
        return f"worker rank={rank}"
    if in_ray:
        return "TaskRunner or helper"
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = main.name if main is not None else Path(sys.argv[0] if sys.argv else "").name
    return "driver" if name == "recipe.launch.driver" else name or "python"


def _title() -> str:
    try:
        with open("/proc/self/cmdline", "rb", buffering=0) as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


@functools.cache
def version_of(requirement: str) -> str:
    """The installed version of the distribution that a requirement ("verl==0.6.1") names; "" when there is none."""
    import importlib.metadata  # not at the top: it takes longer than the rest of the overlay

    try:
        return importlib.metadata.version(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    except importlib.metadata.PackageNotFoundError:
        return ""


def write(patch: Declaration, status: str, reason: str = "", fingerprint: str = "") -> None:
    """Append the line for `patch`, once for this process, patch and status; a single O_APPEND write."""
    run_dir = os.environ.get("RECIPE_RUN_DIR")
    if not run_dir:
        return
    entry = (os.getpid(), patch.id, status)
    with _lock:
        if entry in _written:
            return
        _written.add(entry)
    line = json.dumps(
        {
            "time": time.time(),
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "role": role(),
            "patch": patch.id,
            "target": str(patch.target),
            "kind": patch.kind,
            "status": status,
            "reason": reason,
            "fingerprint": fingerprint,
            "upstream": patch.upstream,
            "version": version_of(patch.upstream),
        }
    )
    file, flags = os.path.join(run_dir, "manifest.jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        handle = os.open(file, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(run_dir, exist_ok=True)
        handle = os.open(file, flags, 0o644)
    try:
        os.write(handle, line.encode("utf-8") + b"\n")
    finally:
        os.close(handle)
