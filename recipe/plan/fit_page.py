# SPDX-License-Identifier: Apache-2.0
"""What was found for a model, as a run file with its plan above it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from recipe.plan.duration import estimate
from recipe.plan.fit import Fit
from recipe.plan.page import COLUMNS, TITLES, fullest_by_phase, layout_text
from recipe.plan.traffic import lengths
from recipe.runfile.toml_text import as_toml
from recipe.sizes import size_text


def run_file(found: Fit, command: str) -> str:
    """The run file.

    Args:
        found: what `fit` found.
        command: that asked for it.
    """
    comment = "\n".join(f"# {line}" for paragraph in _head(found, command) for line in _wrapped(paragraph))
    return f"{comment}\n\n{as_toml(found.values)}"


def _wrapped(paragraph: str) -> list[str]:
    return textwrap.wrap(paragraph, COLUMNS, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def _head(found: Fit, command: str) -> Iterator[str]:
    run, needed = found.found.run, found.found.memory
    cluster, hardware, time = run.config.cluster, run.config.node_hardware, estimate(run, lengths(run, None, None))
    name = "" if hardware is None else f" ({hardware.name})"
    yield f"{command}: the smallest cluster that this fits on, by the plan; it has run nowhere."
    yield f"{cluster.nodes} x {cluster.dies_per_node} dies of {size_text(needed.limit)}{name}; {layout_text(run)}."
    full = ", ".join(f"{TITLES[phase]} {size_text(total)}" for phase, _, total in fullest_by_phase(needed))
    host = "" if (gib := run.config.host_gib_per_node) is None else f" of {gib:g} GiB"
    yield f"The fullest die: {full}. A node's host holds {size_text(needed.host.total)}{host}."
    if time is not None:
        low, high = time.step.low, time.step.high
        yield (
            f"A step with every answer at its longest: about {time.step.estimate:.0f} s, {low:.0f} to {high:.0f} s "
            "(docs/PLAN.md)."
        )
    if found.conversion is not None:
        yield f"[model] checkpoint is what this makes: {found.conversion}"
    head = "[cluster] head is a placeholder for the address of the first node. " if cluster.nodes > 1 else ""
    yield f"{head}Paths are where --shared says. Everything else that can be set: docs/CONFIG.md."
