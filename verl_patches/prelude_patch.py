# SPDX-License-Identifier: Apache-2.0
"""Lay the overlay over this process: the one line of ours in the upstream imports this module.

`from verl_patches import prelude_patch` stands in `verl/workers/megatron_workers.py`, before MindSpeed is imported,
and processes that never import that module get here through `VERL_USE_EXTERNAL_MODULES=verl_patches.prelude_patch`.
Imports nothing heavy, needs no NPU, and may be imported any number of times and in the middle of an upstream import.
"""

from recipe.overlay import install


def _pinned_text(module: str) -> str | None:
    # Imported only when a process is about to stop: `recipe.sources` knows the pinned archives.
    try:
        from recipe.sources.pristine import module_text
    except ImportError:
        return None
    return module_text(module)


install(pinned_text=_pinned_text)
