# SPDX-License-Identifier: Apache-2.0
"""The sections and keys of a run file as dataclasses, with what each means. docs/CONFIG.md is made from this.

A module for each section, or for two that go together. Units are in the names; a name without one is a count.
"""

from recipe.runfile.schema.actor import DIE, HOST, OFFLOADED, OPTIMIZER_PLACES, SWAPPED, Actor, Recompute
from recipe.runfile.schema.cluster import PLACEHOLDER_HEAD, Cluster, Simulator
from recipe.runfile.schema.custom import CustomHardware, missing_figures
from recipe.runfile.schema.data import Data, Reward
from recipe.runfile.schema.hardware import CUDA, CUSTOM, DEVICES, GIB, HARDWARE, NPU, SIM, Figure, Hardware, identified
from recipe.runfile.schema.model import Model
from recipe.runfile.schema.rollout import Rollout
from recipe.runfile.schema.run import MLFLOW, SWANLAB, TENSORBOARD, TRACKERS, WANDB, Run
from recipe.runfile.schema.run_config import MIB, RunConfig
from recipe.runfile.schema.train import LOSS_MODES, ON_POLICY, REPLAY_OFF, REPLAY_ROLLOUT, Train
from recipe.runfile.schema.watch import ACTIONS, OFF, STOP_RUN, WARN, Watch

__all__ = [
    "ACTIONS", "CUDA", "CUSTOM", "DEVICES", "DIE", "GIB", "HARDWARE", "HOST", "LOSS_MODES", "MIB", "MLFLOW", "NPU",
    "OFF", "OFFLOADED", "ON_POLICY", "OPTIMIZER_PLACES", "PLACEHOLDER_HEAD", "REPLAY_OFF", "REPLAY_ROLLOUT", "SIM",
    "STOP_RUN", "SWANLAB", "SWAPPED", "TENSORBOARD", "TRACKERS", "WANDB", "WARN", "Actor", "Cluster",
    "CustomHardware", "Data", "Figure", "Hardware", "Model", "Recompute", "Reward", "Rollout", "Run", "RunConfig",
    "Simulator", "Train", "Watch", "identified", "missing_figures",
]  # fmt: skip
