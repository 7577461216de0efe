# SPDX-License-Identifier: Apache-2.0
"""The state of the overlay in this process as plain data, and how the states of several processes differ."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from recipe.overlay import engine, manifest

Snapshot = dict[str, Any]


def snapshot() -> Snapshot:
    """{host, pid, role, patches: {id: {status, fingerprint, reason}}, upstreams: {requirement: installed version}}.

    Only patches whose upstream module has been imported in this process are in it.
    """
    live = [patch for patch in engine.status() if patch["status"] != "declared"]
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "role": manifest.role(),
        "patches": {patch["patch"]: {key: patch[key] for key in ("status", "fingerprint", "reason")} for patch in live},
        "upstreams": {patch["upstream"]: manifest.version_of(patch["upstream"]) for patch in live},
    }


def compare(snapshots: Sequence[Snapshot]) -> list[str]:
    """How processes that should be alike differ: a line for each patch or version, and each state of a minority of
    them.

    The state of most processes counts as usual (in a tie, the first one); each line names the processes that differ
    from it.
    """
    lines = []
    for part, what in (("patches", "patch"), ("upstreams", "upstream")):
        for key in dict.fromkeys(key for process in snapshots for key in process[part]):
            states = [_text(process[part].get(key)) for process in snapshots]
            usual, count = Counter(states).most_common(1)[0]
            for unusual in dict.fromkeys(state for state in states if state != usual):
                who = [f"{process['role']} (host {process['host']}, pid {process['pid']})"
                       for process, state in zip(snapshots, states, strict=True) if state == unusual]  # fmt: skip
                shown = ", ".join(who[:3]) + (f" and {len(who) - 3} more" if len(who) > 3 else "")
                lines.append(f"{what} {key}: {unusual} in {shown}; {usual} in {count} of {len(snapshots)} processes")
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "not there"
    if isinstance(value, str):
        return value or "not installed"
    return " ".join(filter(None, (value["status"], value["fingerprint"], value["reason"] and f"({value['reason']})")))
