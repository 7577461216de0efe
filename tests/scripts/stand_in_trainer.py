# SPDX-License-Identifier: Apache-2.0
"""A trainer that joins the Ray it is told to, runs a task on every die, writes metrics and checkpoints, and waits.

STAND_IN_STEP in the environment is the step after which it waits: until the file STAND_IN_GO is there, or for ever.
STAND_IN_DATA is a JSON object of further metrics.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import ray
from hydra.core.override_parser.overrides_parser import OverridesParser

from recipe.checkpoints import Manifest, list_files, sum_files, write_manifest
from verl_patches.trainer.ppo.checkpoint_manifest import begin_save, run_settings

given = {one.key_or_group: str(one.value()) for one in OverridesParser.create().parse_overrides(sys.argv[1:])}


@ray.remote(num_cpus=0, resources={"NPU": 1}, scheduling_strategy="SPREAD")
def where() -> str:
    time.sleep(1)
    return ray.util.get_node_ip_address() + " " + os.environ["RECIPE_RUN_DIR"]


def write_checkpoint(step: int) -> tuple[Path, Manifest]:
    root = Path(given["trainer.default_local_dir"])
    weights = root / f"global_step_{step}" / "actor" / "dist_ckpt"
    checkpoint = root / f"global_step_{step}"
    begin_save(checkpoint)
    weights.mkdir(parents=True, exist_ok=True)
    for path in (weights / ".metadata", weights / "metadata.json", weights / "__0_0.distcp", checkpoint / "data.pt"):
        path.write_text(f"{path.name} of step {step}")
    (root / "latest_checkpointed_iteration.txt").write_text(str(step))
    sums = sum_files(checkpoint, list_files(checkpoint), threads=1)
    return checkpoint, Manifest(step, sums, run_settings())


print(f"ray init kwargs: {given['ray_kwargs.ray_init.address']}", flush=True)
ray.init(
    address=given["ray_kwargs.ray_init.address"],
    _node_ip_address=given["ray_kwargs.ray_init._node_ip_address"],
    log_to_driver=False,
)
dies = int(given["trainer.nnodes"]) * int(given["trainer.n_gpus_per_node"])
print("dies:", sorted(ray.get([where.remote() for _ in range(dies)])), flush=True)
resumed = given.get("trainer.resume_from_path", "0").rpartition("_")[2]
for step in range(int(resumed) + 1, int(given["trainer.total_training_steps"]) + 1):
    data = {"timing_s/step": 0.1, "critic/score/mean": 0.5, "response_length/mean": 9.0}
    data |= json.loads(os.environ.get("STAND_IN_DATA", "{}"))
    saved = write_checkpoint(step) if step % max(1, int(given["trainer.save_freq"])) == 0 else None
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "data": data}) + "\n")
    if saved is not None:
        write_manifest(*saved)
    while step == int(os.environ.get("STAND_IN_STEP", "0")) and not os.path.exists(os.environ.get("STAND_IN_GO", "")):
        time.sleep(0.2)
