# SPDX-License-Identifier: Apache-2.0
"""What the checks look at: the run file and what follows from it, the files it names, this machine, and the Ray."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.preflight.catalogue import CannotTell, NoMatter
from recipe.preflight.machine import Machine
from recipe.preflight.ray_facts import RayFacts
from recipe.runfile import architecture
from recipe.runfile.architecture import Architecture
from recipe.runfile.derive import Derived, Layout, derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.paths import REPO, RunPaths
from recipe.runfile.schema import RunConfig
from recipe.weights.errors import WeightsError

if TYPE_CHECKING:
    from recipe.weights.dcp_metadata import StoredTensor
    from recipe.weights.layout import MegatronLayout


@dataclass(frozen=True)
class Facts:
    """`node`: this machine is one of the run's, so what is not on it is missing."""

    config: RunConfig
    machine: Machine
    node: bool
    upstream: Path
    repo: Path = REPO
    ray: RayFacts | None = None
    # The first of this node's Ray ports, where it is not the run file's.
    base_port: int | None = None
    # What one check has read and another needs too.
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """One of `recipe.runfile.schema.DEVICES`."""
        return self.config.cluster.device

    @property
    def requirements_file(self) -> Path:
        return self.repo / ("requirements-sim.txt" if self.device == "sim" else "requirements.txt")

    @cached_property
    def derived(self) -> Derived:
        """What follows from the run file; the names that a launch makes up have stand-ins."""
        return derive_run(self.config, upstream=self.upstream)

    @cached_property
    def layout(self) -> Layout:
        """The derived sizes. CannotTell when they do not work out, which the L checks report."""
        try:
            return self.derived.layout
        except ConfigError:
            raise CannotTell("the layout does not work out; see the L findings") from None

    @property
    def environment(self) -> dict[str, str]:
        """The derived variables. CannotTell without a layout; ConfigError where [environment] names one of them."""
        _ = self.layout
        return self.derived.environment

    @property
    def paths(self) -> RunPaths:
        """Where the run would keep things; the names that a launch makes up have stand-ins."""
        return self.derived.paths

    @cached_property
    def parameters(self) -> int:
        """The model's parameters. CannotTell where its sizes are not known."""
        from recipe.plan.parameters import actor_parameters

        model = self.architecture
        whole = actor_parameters(model, 0, model.layers, tensor=1, expert=1, first=True, last=True)
        return sum(one.elements for one in whole)

    @cached_property
    def ports(self) -> dict[str, range]:
        """The ports that the run wants on this node, by purpose."""
        return self.derived.ports(self.base_port, self.leads)

    @property
    def ray_address(self) -> str:
        """ADDRESS:PORT of the run's Ray."""
        return self.config.cluster.ray_address

    @property
    def shared_paths(self) -> list[str]:
        """What every node reads."""
        return [str(Path(path).expanduser()) for name, path in self.config.paths.items() if "[run]" not in name]

    @property
    def leads(self) -> bool:
        """Whether this machine has the head's address."""
        cluster = self.config.cluster
        return cluster.nodes == 1 or cluster.head in (self.machine.host, *self.machine.interfaces.values())

    @property
    def sequence_tokens(self) -> int:
        """The longest prompt and response together."""
        return self.derived.sequence_tokens

    @cached_property
    def model(self) -> dict[str, Any]:
        """config.json of the run's model. CannotTell where it cannot be read here."""
        if self.config.model.path is None:
            from recipe.tiny.config import tiny_fields

            return tiny_fields()
        file = self.model_directory / "config.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CannotTell(f"{file} is not on this machine") from None
        except OSError as error:
            raise CannotTell(f"{file} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise CannotTell(f"{file} is not valid JSON ({error})") from None
        if not isinstance(content, dict):
            raise CannotTell(f"{file} holds no JSON object")
        return content

    @cached_property
    def architecture(self) -> Architecture:
        """The model's sizes: from config.json where it is here, else by the name in the run file. CannotTell."""
        try:
            model = self.model
        except CannotTell as reason:
            known = architecture.KNOWN.get(self.config.model.architecture or "")
            if known is None:
                raise CannotTell(f"{reason}, and [model] architecture names no sizes to assume") from None
            return known
        try:
            return architecture.from_config_json(model)
        except ValueError as error:
            raise CannotTell(str(error)) from None

    @cached_property
    def megatron_layout(self) -> MegatronLayout:
        """Names and shapes that a Megatron checkpoint of this model has. CannotTell for a model that has no key map."""
        from recipe.weights.key_maps import layout_of

        model, file = self.model, self.model_directory / "config.json"
        try:
            return layout_of(model, file)
        except (WeightsError, KeyError, TypeError) as error:
            raise CannotTell(str(error)) from None

    @property
    def beyond_the_model(self) -> str:
        """A name that only a checkpoint with more layers has."""
        return f"decoder.layers.{self.architecture.layers}.input_layernorm.weight"

    @cached_property
    def stored_tensors(self) -> dict[str, StoredTensor]:
        """The tensors of this model that the run's checkpoint holds. Raises WeightsError for a damaged one."""
        from recipe.weights.dcp_reader import read_metadata

        wanted = {name for place in self.megatron_layout.places for name in place.names} | {self.beyond_the_model}
        return read_metadata(Path(str(self.config.model.checkpoint)).expanduser(), wanted)

    @property
    def model_directory(self) -> Path:
        """The Hugging Face directory. NoMatter for the tiny model, which is made at the launch."""
        if self.config.model.path is None:
            raise NoMatter
        return Path(self.config.model.path).expanduser()

    def here(self, path: Path, what: str) -> Path:
        """`path`, where it exists. CannotTell where it does not, as on a laptop; whether it must is another check's."""
        if not path.exists():
            raise CannotTell(f"{what} {path} is not on this machine")
        return path
