# SPDX-License-Identifier: Apache-2.0
"""The facts of a run on this machine, each made when a check first asks for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.checks.facts import problems
from recipe.checks.facts.cluster import RayFacts
from recipe.checks.facts.dies import DieFacts
from recipe.checks.facts.latest_run import LatestRun
from recipe.checks.facts.machine import Machine
from recipe.checks.facts.problems import Messages, Problems
from recipe.checks.finding import CannotTell, NoMatter
from recipe.data.records import DataError
from recipe.models.architecture import Architecture
from recipe.models.config_file import read_config
from recipe.models.families import describe
from recipe.models.family import ModelError
from recipe.models.published import KNOWN
from recipe.runfile.derive import Derived, Layout, derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.paths import REPO, RunPaths, runs_dir
from recipe.runfile.schema import GIB, SIM, RunConfig
from recipe.tiny.config import tiny_fields
from recipe.weights.errors import WeightsError

if TYPE_CHECKING:
    from recipe.audit.fit import Fit
    from recipe.plan.memory import Memory
    from recipe.plan.subject import Subject
    from recipe.weights.dcp_metadata import StoredTensor
    from recipe.weights.layout import MegatronLayout


@dataclass(frozen=True)
class Facts:
    """What checks look at.

    Attributes:
        config: the run; for doctor, a run that is typical of such a machine.
        machine: this machine.
        node: whether this machine is one of the run's, so that what is not on it is missing.
        upstream: the tree of the upstream sources.
        repo: this checkout.
        ray: the run's Ray, if it was asked.
        dies: this machine's dies, if torch was asked.
        base_port: the first of this node's Ray ports, where it is not the run file's.
        runs: the directory with what runs have left.
    """

    config: RunConfig
    machine: Machine
    node: bool
    upstream: Path
    repo: Path = REPO
    ray: RayFacts | None = None
    dies: DieFacts | None = None
    base_port: int | None = None
    runs: Path = field(default_factory=runs_dir)

    @property
    def device(self) -> str:
        """One of `recipe.runfile.schema.DEVICES`."""
        return self.config.cluster.device

    @property
    def requirements_file(self) -> Path:
        return self.repo / ("requirements-sim.txt" if self.device == SIM else "requirements.txt")

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
        parts = actor_parameters(model, 0, model.layers, tensor=1, expert=1, first=True, last=True)
        return sum(part.elements for part in parts)

    @cached_property
    def planned_memory(self) -> Memory:
        """What `recipe.plan` makes of the run. CannotTell where it cannot be planned.

        NoMatter on simulated dies with problems of the user's: these set a length that is not known yet.
        """
        if self.device == SIM and self.config.data.kind != "arithmetic":
            raise NoMatter
        return self._planned(self.config)

    def memory_on(self, die_bytes: int) -> Memory:
        """The same on dies of other memory."""
        cluster = dataclasses.replace(self.config.cluster, hbm_gib_per_die=die_bytes / GIB)
        return self._planned(dataclasses.replace(self.config, cluster=cluster))

    @cached_property
    def subject(self) -> Subject:
        """The run as `recipe.plan` looks at it. CannotTell where it cannot be planned."""
        return self._subject(self.config)

    def _planned(self, config: RunConfig) -> Memory:
        from recipe.plan.memory import memory

        return memory(self._subject(config))

    def _subject(self, config: RunConfig) -> Subject:
        from recipe.plan.subject import subject

        _ = self.layout
        try:
            return subject(config, self.architecture)
        except ConfigError as error:
            raise CannotTell(str(error)) from None

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
            return tiny_fields(self.config.model.sizes, self.config.model.member)
        try:
            content = read_config(self.model_directory)
        except ModelError as error:
            raise CannotTell(str(error)) from None
        if content is None:
            raise CannotTell(f"{self.model_directory / 'config.json'} is not on this machine")
        return content

    @cached_property
    def architecture(self) -> Architecture:
        """The model's sizes: from config.json where it is here, else by the name in the run file. CannotTell."""
        try:
            model = self.model
        except CannotTell as reason:
            known = KNOWN.get(self.config.model.architecture or "")
            if known is None:
                raise CannotTell(f"{reason}, and [model] architecture names no sizes to assume") from None
            return known
        try:
            return describe(model)
        except ModelError as error:
            raise CannotTell(f"config.json: {error}") from None

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

    @property
    def problem_files(self) -> dict[str, Path]:
        """The files of problems by their keys in [data]; NoMatter for problems that are made at the launch."""
        data = self.config.data
        named = {"path": data.path, "train_path": data.train_path, "validation_path": data.validation_path}
        files = {key: Path(value).expanduser() for key, value in named.items() if value is not None}
        if not files:
            raise NoMatter
        return files

    @property
    def problem_files_here(self) -> dict[str, Path]:
        """The same, where all of them are on this machine. CannotTell where one is not."""
        return {key: self.here(file, f"[data] {key}") for key, file in self.problem_files.items()}

    @cached_property
    def problems(self) -> dict[str, Problems]:
        """The problems of each file. CannotTell where they cannot be read, which D001, D002 and D004 report."""
        template, files = self.config.data.template, self.problem_files_here
        try:
            return {
                key: problems.read_json(file, template) if key == "path" else problems.read_parquet(file)
                for key, file in files.items()
            }
        except (ValueError, DataError) as error:
            raise CannotTell(f"the problems cannot be read (D002, D004): {error}") from None

    @property
    def prompts(self) -> list[Messages]:
        """The prompts of all problems."""
        return [prompt for of_file in self.problems.values() for prompt in of_file.prompts]

    @cached_property
    def tokenized(self) -> dict[str, Any]:
        """What the model's tokenizer says of the longest prompts, as `measure` of `recipe.checks.facts.tokens`."""
        from recipe.checks.facts.tokens import measure

        directory, prompts = self.here(self.model_directory, "the model's directory"), self.prompts
        if not prompts:
            raise CannotTell("there are no problems (D003)")
        chosen = list(problems.longest(prompts, problems.LONGEST))
        try:
            return measure(directory, chosen, self.derived.chat_template)
        except ConfigError as error:
            raise CannotTell(f"the chat template cannot be read (W005): {error}") from None

    @cached_property
    def upstream_manifest(self) -> dict[str, Any] | None:
        """What `sync` has noted of the upstream sources; None where it has not made them, or not whole."""
        from recipe.sources.swap import read_manifest

        return read_manifest(self.upstream)

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """Whether each patch fits the upstream sources, by its id. CannotTell where there are no sources."""
        from recipe.audit.fit import verify

        if not (self.upstream / "verl").is_dir():
            raise CannotTell(f"{self.upstream} holds no verl; run: python -m recipe sync")
        return {fit.declaration.id: fit for fit in verify([self.upstream])}

    @cached_property
    def latest_run(self) -> LatestRun:
        """What the run that wrote last has left."""
        return LatestRun(self.runs)

    def here(self, path: Path, what: str) -> Path:
        """`path`, where it exists. CannotTell where it does not, as on a laptop; whether it must is another check's."""
        if not path.exists():
            raise CannotTell(f"{what} {path} is not on this machine")
        return path
