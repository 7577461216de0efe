# SPDX-License-Identifier: Apache-2.0
"""The environment of every process of a run: the driver gets it from the launcher, Ray passes it on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recipe.launch.config import RunConfig
from recipe.launch.layout import Layout

REPO = Path(__file__).resolve().parents[2]
RUN_ID = "RECIPE_RUN_ID"
# Left over in a shell from another job, any of these changes what vLLM, Ray or torch do without a word in our files.
FOREIGN_PREFIXES = ("VLLM_", "RAY_", "VERL_", "NPU_SIM_", "RECIPE_RUN_")
FOREIGN_NAMES = (
    "TORCH_DEVICE_BACKEND_AUTOLOAD",  # off, torch_npu is never loaded by verl
    "ASCEND_RT_VISIBLE_DEVICES",  # Ray sets it per worker
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


@dataclass(frozen=True)
class RunPaths:
    """Where a run keeps things. `ray_temp` is short, because Ray puts sockets with a 107-byte limit under it."""

    run_dir: Path
    run_id: str
    ray_temp: Path

    @property
    def metrics(self) -> Path:
        return self.run_dir / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        return self.run_dir / "validation"

    @property
    def driver_log(self) -> Path:
        return self.run_dir / "logs" / "driver.log"

    @property
    def slots(self) -> Path:
        return self.run_dir / "npu_sim.slots"


def upstream_dir() -> Path:
    """The synced upstream sources; RECIPE_UPSTREAM names another tree's."""
    return Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))


def derived_environment(config: RunConfig, layout: Layout, paths: RunPaths) -> dict[str, str]:
    """What the run adds to the inherited environment."""
    return {
        "PYTHONPATH": os.pathsep.join([str(REPO), str(upstream_dir())]),
        "PYTHONUNBUFFERED": "1",
        # The driver never imports verl/workers/megatron_workers.py, where the prelude line is.
        "VERL_USE_EXTERNAL_MODULES": "verl_patches.prelude_patch",
        "VERL_FILE_LOGGER_PATH": str(paths.metrics),
        "RECIPE_RUN_DIR": str(paths.run_dir),
        RUN_ID: paths.run_id,
        # An own, closed Ray: no usage reports, no idle workers in advance, devices assigned to actors only.
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
        # Ray replaces a loopback address by the machine's own and then listens on every interface, unless it is told
        # that this is one machine; the switch is named for the systems where that is the default.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "VLLM_USE_V1": "1",
        "VLLM_DP_SIZE": str(layout.rollout_data),
        "RECIPE_DP_SYNC_ON_DEVICE": str(int(config.rollout.dp_sync_on_device)),
        "VLLM_NO_USAGE_STATS": "1",
        # Paged attention in decode. Otherwise vLLM-Ascend concatenates the whole KV cache in every layer and step.
        "VLLM_ASCEND_MLA_PA": "1",
        "VLLM_LOGGING_LEVEL": "WARN",
        # Everything talks over loopback, and threads only where a process asks for them: the cores are shared.
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # oneDNN keeps compiled products by shape, and shapes change with every batch: at its default of 1024 entries a
        # worker's memory grows for hundreds of steps.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
        "LRU_CACHE_CAPACITY": "256",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache_dir() / "huggingface"),
        "TORCHDYNAMO_DISABLE": "1",
        "NPU_SIM_DEVICES": str(max(8, config.cluster.dies_per_node)),
        "NPU_SIM_HBM": f"{config.simulator.hbm_mib}MiB",
        "NPU_SIM_SLOTS": str(paths.slots),
        "HYDRA_FULL_ERROR": "1",
    }


def full_environment(derived: Mapping[str, str], inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of the driver: the inherited one without foreign settings, and the derived values."""
    base = os.environ if inherited is None else inherited
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith(FOREIGN_PREFIXES) and name not in FOREIGN_NAMES
    }
    return {**kept, **derived}


def runs_dir() -> Path:
    """Where runs are kept; RECIPE_RUNS names another place than `runs/`."""
    return Path(os.environ.get("RECIPE_RUNS", REPO / "runs")).absolute()


def cache_dir() -> Path:
    """What several runs share: models, data and checkpoints by the hash of their inputs."""
    return runs_dir() / ".cache"
