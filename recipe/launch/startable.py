# SPDX-License-Identifier: Apache-2.0
"""Whether a run can be started on this machine: its file, the upstream sources, and the interpreter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from recipe.audit.fit import verify
from recipe.launch.first_look import first_look, require_one_machine, require_plain_interpreter
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import require_verl
from recipe.runfile.schema import RunConfig
from recipe.runfile.trackers import require_trackers


def require_startable(config: RunConfig, source: Path, alone: bool) -> None:
    """Refuse a run that this machine cannot start, before anything is made for it.

    Args:
        config: the run.
        source: its file.
        alone: no other launcher takes part.

    Raises:
        ConfigError: the run file cannot be used, here or anywhere, or needs more than one machine.
        LaunchError: the upstream sources, or the interpreter, are not what a run needs.
    """
    if alone:
        require_one_machine(config, source)
    derived = first_look(config)
    _require_sources(derived.upstream)
    _ = derived.mindspeed  # it refuses some layouts, and some optimizers are its own
    _ = derived.passed  # it refuses what verl does not take
    if alone:
        require_trackers(config, os.environ)
    require_plain_interpreter(sys.executable)


def _require_sources(upstream: Path) -> None:
    """Refuses sources that are not there, or that our patches were not written for.

    Raises:
        LaunchError: says so, with the first patch that does not fit.
    """
    require_verl(upstream)
    drifted = [fit.line for fit in verify([upstream]) if not fit.fits]
    if drifted:
        raise LaunchError("patches do not fit the upstream sources, see python -m recipe patches verify: " + drifted[0])
