# SPDX-License-Identifier: Apache-2.0
"""Which variables of the launcher's shell the processes of a run inherit."""

from __future__ import annotations

import os
from collections.abc import Mapping

from recipe.runfile.trackers import take_tokens

# Left over in a shell from another job, any of these changes what vLLM, Ray, HCCL or torch do without a word in our
# files. What is wanted goes into [environment] of the run file.
FOREIGN_PREFIXES = ("VLLM_", "RAY_", "VERL_", "HCCL_", "NPU_SIM_", "RECIPE_RUN_")
FOREIGN_NAMES = (
    "TORCH_DEVICE_BACKEND_AUTOLOAD",  # when it is off, verl never loads torch_npu
    "ASCEND_RT_VISIBLE_DEVICES",  # Ray sets it per worker
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_NPU_ALLOC_CONF",
    "TASK_QUEUE_ENABLE",
    "ASCEND_LAUNCH_BLOCKING",  # a debugging aid that makes every operator wait
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def full_environment(
    derived: Mapping[str, str], inherited: Mapping[str, str] | None = None, *, for_trainer: bool = True
) -> dict[str, str]:
    """The whole environment of the driver: the inherited one without foreign settings, and the derived values.

    The tokens of trackers are in it only `for_trainer`.

    CANN's own Python packages, which its operator compiler imports, stay on the path behind ours.
    """
    base = os.environ if inherited is None else inherited
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith(FOREIGN_PREFIXES) and name not in FOREIGN_NAMES
    }
    path = os.pathsep.join([derived["PYTHONPATH"], *_cann_packages(base)])
    environment = {**kept, **derived, "PYTHONPATH": path}
    if not for_trainer:
        take_tokens(environment)
    return environment


def _cann_packages(base: Mapping[str, str]) -> list[str]:
    """The entries of PYTHONPATH that CANN's set_env.sh has put there."""
    home = base.get("ASCEND_TOOLKIT_HOME") or base.get("ASCEND_HOME_PATH")
    entries = base.get("PYTHONPATH", "").split(os.pathsep)
    return [entry for entry in entries if home and entry.startswith(f"{home.rstrip('/')}/")]
