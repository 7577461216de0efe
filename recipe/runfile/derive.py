# SPDX-License-Identifier: Apache-2.0
"""The one door to what follows from a run file: for `show`, the launcher on every node, preflight and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recipe.models.architecture import Architecture
from recipe.runfile import mindspeed, model_files
from recipe.runfile.environment import derived_environment
from recipe.runfile.errors import ConfigError
from recipe.runfile.inputs import Inputs, given_inputs
from recipe.runfile.layout import Layout, Mismatch, lay_out, longest_sequence, problems
from recipe.runfile.mindspeed import Refusal
from recipe.runfile.overrides import DRIVER, Basis, hydra_overrides, transformer_config
from recipe.runfile.passed import taken_over
from recipe.runfile.passed.composed import require_composed
from recipe.runfile.passed.require import can_be_checked, require_own, require_taken
from recipe.runfile.paths import RunPaths, upstream_dir
from recipe.runfile.ports import planned, require_apart
from recipe.runfile.schema import RunConfig

__all__ = ["Derived", "Inputs", "Layout", "Mismatch", "Refusal", "derive_run"]


def derive_run(
    config: RunConfig,
    inputs: Inputs | None = None,
    paths: RunPaths | None = None,
    *,
    interface: str | None = None,
    upstream: Path | None = None,
) -> Derived:
    """All that follows from a run file.

    Args:
        config: the run.
        inputs: what it reads, once all of that is made. Default: what the run file names, with stand-ins for what a
            simulated run makes at launch; the length of the longest prompt is then not known.
        paths: where this launch keeps things. Default: with stand-ins for the names that a launch makes up.
        interface: this node's network interface to the other nodes. Default: the run file's.
        upstream: the tree of upstream sources. Default: this repository's.
    """
    upstream = upstream_dir() if upstream is None else upstream
    return Derived(config, inputs, paths, interface or config.cluster.interface, upstream)


@dataclass(frozen=True)
class Derived:
    """What follows from a run file; each part is worked out when it is first asked for, and kept.

    A part raises ConfigError where it cannot be derived from the run file and the files that it names.
    """

    config: RunConfig
    made: Inputs | None
    kept: RunPaths | None
    interface: str | None
    upstream: Path

    @cached_property
    def inputs(self) -> Inputs:
        """What the run reads, with stand-ins for what is not made yet."""
        return given_inputs(self.config) if self.made is None else self.made

    @cached_property
    def paths(self) -> RunPaths:
        """Where the run keeps things, with stand-ins for the names that a launch makes up."""
        return RunPaths.of(self.config) if self.kept is None else self.kept

    def complete(self) -> Derived:
        """The same, with every part worked out.

        Raises:
            ConfigError: for the first part that cannot be derived.
        """
        _ = self.layout, self._basis
        if not self.config.cluster.own_ray:
            require_apart(self.config)
        _ = self.environment, self.overrides
        return self

    @cached_property
    def problems(self) -> tuple[Mismatch, ...]:
        """What keeps the run from having a layout, should its prompts be as long as they may be."""
        return tuple(problems(self.config, self.inputs.prompt_tokens))

    @cached_property
    def layout(self) -> Layout:
        """Who holds what, and every size that follows from it."""
        return self.layout_for(None if self.made is None else self.made.prompt_tokens)

    def layout_for(self, prompt_tokens: int | None) -> Layout:
        """The layout with prompts padded to `prompt_tokens`; None: not known, so that the run file's limit counts."""
        return lay_out(self.config, prompt_tokens)

    @property
    def sequence_tokens(self) -> int:
        """Tokens of the longest prompt and response together."""
        return longest_sequence(self.config, self.inputs.prompt_tokens)

    @cached_property
    def refusals(self) -> tuple[Refusal, ...]:
        """What MindSpeed, or its absence, rules out."""
        return tuple(mindspeed.refusals(self.config, self.upstream, self.known_architecture))

    @cached_property
    def mindspeed(self) -> dict[str, Any]:
        """The settings for MindSpeed; empty where it takes no part."""
        return mindspeed.overrides(self.config, self.upstream, self.architecture)

    @cached_property
    def architecture(self) -> Architecture | None:
        """The sizes of the model; None where they are not known."""
        return model_files.architecture(self.config, self.inputs.model)

    @property
    def known_architecture(self) -> Architecture | None:
        """The same, and None for a model that is refused where its sizes are needed."""
        try:
            return self.architecture
        except ConfigError:
            return None

    @cached_property
    def model_config(self) -> Mapping[str, Any] | None:
        """The model's config.json; None where it cannot be seen."""
        return model_files.model_config(self.config, self.inputs.model)

    @cached_property
    def strict(self) -> bool:
        """Whether the simulated device refuses what an NPU does not take."""
        if not self.config.simulated or self.config.simulator.strict is not None:
            return bool(self.config.simulator.strict)
        known = self.known_architecture
        return known is not None and known.as_published

    @cached_property
    def chat_template_file(self) -> Path | None:
        """The file with the chat template that prompts are rendered with; None: the tokenizer has its own."""
        return model_files.chat_template(self.config, self.inputs.model)

    @cached_property
    def chat_template(self) -> str | None:
        """The text of that template."""
        return model_files.template_text(self.chat_template_file)

    @cached_property
    def environment(self) -> dict[str, str]:
        """What the run adds to the environment of each of its processes on this node."""
        known = self.known_architecture
        return derived_environment(
            self.config, self.layout, self.paths, self.interface, model=known, strict=self.strict
        )

    @cached_property
    def _basis(self) -> Basis:
        template = self.chat_template
        of_model = {} if self.architecture is None else self.architecture.transformer_overrides
        added = of_model | self.mindspeed
        return Basis(self.config, self.layout, self.inputs, self.paths, added, template)

    @cached_property
    def transformer(self) -> dict[str, Any]:
        """verl's `override_transformer_config`."""
        return transformer_config(self._basis)

    @cached_property
    def passed(self) -> list[str]:
        """The settings of `[verl]` as overrides. Whether verl takes them is known where its sources are."""
        settings = self.config.verl
        require_own(settings)
        if settings and can_be_checked(self.upstream):
            require_taken(settings, self.upstream)
            require_composed(self.upstream, taken_over(settings))
        return taken_over(settings)

    @cached_property
    def overrides(self) -> list[str]:
        """What verl's trainer is told, one override of its configuration per item."""
        return [*hydra_overrides(self._basis), *self.passed]

    @property
    def arguments(self) -> list[str]:
        """The driver's command line, after the interpreter."""
        return [*DRIVER, *self.overrides]

    def ports(self, first: int | None = None, leads: bool = True) -> dict[str, range]:
        """The ports that a node listens on by plan, by purpose.

        Args:
            first: of its Ray's daemons and workers. Default: the run file's.
            leads: whether it is the head.
        """
        return planned(self.config, first, leads)
