# SPDX-License-Identifier: Apache-2.0
"""What the checks look at: the run file and what follows from it, the files it names, this machine, and the Ray."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recipe.launch import architecture
from recipe.launch.architecture import Architecture
from recipe.launch.config import RunConfig
from recipe.launch.environment import REPO
from recipe.launch.errors import ConfigError
from recipe.launch.layout import Layout, derive, longest_sequence
from recipe.preflight.catalogue import CannotTell, NoMatter
from recipe.preflight.machine import Machine


@dataclass(frozen=True)
class Facts:
    """`node`: this machine is one of the run's, so what is not on it is missing."""

    config: RunConfig
    machine: Machine
    node: bool
    upstream: Path
    repo: Path = REPO

    @property
    def device(self) -> str:
        """One of `recipe.launch.config.DEVICES`."""
        return self.config.cluster.device

    @property
    def requirements_file(self) -> Path:
        return self.repo / ("requirements-sim.txt" if self.device == "sim" else "requirements.txt")

    @cached_property
    def layout(self) -> Layout:
        """The derived sizes. CannotTell when they do not work out, which the L checks report."""
        try:
            return derive(self.config)
        except ConfigError:
            raise CannotTell("the layout does not work out; see the L findings") from None

    @property
    def sequence_tokens(self) -> int:
        """The longest prompt and response together."""
        return longest_sequence(self.config)

    @cached_property
    def model(self) -> dict[str, Any]:
        """config.json of the run's model. CannotTell where it cannot be read here."""
        if self.config.model.path is None:
            from recipe.tiny.config import tiny_fields

            return tiny_fields()
        file = self.model_directory / "config.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise CannotTell(f"{file} cannot be read here ({error.strerror})") from None
        except ValueError as error:
            raise CannotTell(f"{file} is not valid JSON ({error})") from None
        if not isinstance(content, dict):
            raise CannotTell(f"{file} holds no JSON object")
        return content

    @cached_property
    def architecture(self) -> Architecture:
        """The model's sizes: from config.json where it is here, else by the name in the run file. CannotTell."""
        try:
            return architecture.from_config_json(self.model)
        except CannotTell as reason:
            known = architecture.KNOWN.get(self.config.model.architecture or "")
            if known is None:
                raise CannotTell(f"{reason}, and [model] architecture names no sizes to assume") from None
            return known
        except ValueError as error:
            raise CannotTell(str(error)) from None

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
