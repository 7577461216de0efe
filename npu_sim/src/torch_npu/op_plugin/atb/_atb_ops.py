# SPDX-License-Identifier: Apache-2.0
"""vLLM-Ascend calls this once at start; the simulated operators are there already."""


def _register_atb_extensions() -> None:
    pass
