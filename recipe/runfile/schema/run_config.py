# SPDX-License-Identifier: Apache-2.0
"""A run file as a whole: its sections, and values that follow from more than one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.runfile.masking import masked
from recipe.runfile.passed import merged
from recipe.runfile.schema.actor import Actor
from recipe.runfile.schema.cluster import Cluster, Simulator
from recipe.runfile.schema.custom import CustomHardware, custom_hardware
from recipe.runfile.schema.data import Data, Reward
from recipe.runfile.schema.hardware import CUDA, CUSTOM, GIB, HARDWARE, SIM, Hardware
from recipe.runfile.schema.model import Model
from recipe.runfile.schema.profile import Profile
from recipe.runfile.schema.rollout import Rollout
from recipe.runfile.schema.run import Run
from recipe.runfile.schema.train import Train
from recipe.runfile.schema.watch import Watch
from recipe.runfile.typed_toml import CHANGES, FREE, key, with_values

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run file; its sections in the order in which they are written and documented."""

    run: Run
    cluster: Cluster
    hardware: CustomHardware = field(default_factory=CustomHardware)
    simulator: Simulator = field(default_factory=Simulator)
    model: Model = field(default_factory=Model)
    data: Data
    reward: Reward = field(default_factory=Reward)
    rollout: Rollout
    actor: Actor
    train: Train
    watch: Watch = field(default_factory=Watch)
    profile: Profile = field(default_factory=Profile)
    verl: dict[str, Any] = key(
        "further settings of verl, by their keys in its configuration (docs/LAUNCH.md); none that is derived",
        {},
        on_resume=CHANGES,
    )
    environment: dict[str, str] = key("more variables for every process; none that is derived", {}, on_resume=FREE)

    @property
    def simulated(self) -> bool:
        return self.cluster.device == SIM

    @property
    def router_type(self) -> str:
        """The type that the actor's router works in, as Megatron-core's `moe_router_dtype`.

        verl 0.6.1 has float64, which an NPU does not multiply: its matrix product takes bfloat16, float16 and float32
        (CANN 8.2.RC1, aclnnMm).
        """
        return "fp64" if self.cluster.device == CUDA and self.actor.moe_profile == "default" else "fp32"

    @property
    def paths(self) -> dict[str, str]:
        """The paths that the run file gives, by their keys."""
        named = {
            "[model] path": self.model.path,
            "[model] checkpoint": self.model.checkpoint,
            "[data] path": self.data.path,
            "[data] train_path": self.data.train_path,
            "[data] validation_path": self.data.validation_path,
            "[data] chat_template": self.data.chat_template,
            "[run] output_dir": self.run.output_dir,
            "[run] checkpoint_dir": self.run.checkpoint_dir,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def node_hardware(self) -> Hardware | None:
        """The hardware of the nodes; None for simulated dies."""
        if self.simulated:
            return None
        if self.cluster.hardware == CUSTOM:
            return custom_hardware(self.cluster, self.hardware)
        return HARDWARE[self.cluster.hardware or ""]

    @property
    def hbm_bytes_per_die(self) -> int:
        """What torch is offered on a die."""
        nodes, stated = self.node_hardware, self.cluster.hbm_gib_per_die
        if nodes is None:
            return self.simulator.hbm_mib * MIB
        return int((nodes.offered_gib if stated is None else stated) * GIB)

    @property
    def host_gib_per_node(self) -> float | None:
        """Memory of a node's host, stated or as such nodes have; None for simulated dies where it is not stated."""
        stated, nodes = self.cluster.host_memory_gib_per_node, self.node_hardware
        return stated if stated is not None or nodes is None else nodes.host_gib

    def described(self) -> dict[str, Any]:
        """The values by section and key as they are written into the run's files and shown: secret ones are hidden."""
        return dataclasses.asdict(self) | {"environment": masked(self.environment)}

    def with_run(self, **changes: Any) -> RunConfig:
        """The same run with other values in `[run]`, from options of those names; None changes nothing.

        Raises:
            ConfigError: a value of another type, or beyond the key's limits.
        """
        options = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, run=with_values(self.run, options, "--")) if options else self

    def with_passed(self, settings: Mapping[str, Any]) -> RunConfig:
        """The same run with these settings of verl too, which win over those of `[verl]`."""
        return dataclasses.replace(self, verl=merged(self.verl, settings))

    def with_json_data(self, path: Path, max_response_tokens: int) -> RunConfig:
        """The same run on the problems of a DeepScaleR-schema file, with room for longer answers."""
        data = dataclasses.replace(
            self.data,
            kind="json",
            path=str(path),
            train_path=None,
            validation_path=None,
            max_response_tokens=max(max_response_tokens, self.data.max_response_tokens),
        )
        return dataclasses.replace(self, data=data)
