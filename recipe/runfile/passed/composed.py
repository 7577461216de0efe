# SPDX-License-Identifier: Apache-2.0
"""verl's configuration of a run, put together by Hydra from the upstream sources as verl's own entry does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from recipe.runfile.errors import ConfigError

NAME = "ppo_megatron_trainer"


def config_directory(upstream: Path) -> Path:
    """Where verl keeps the files of its configuration."""
    return upstream / "verl" / "trainer" / "config"


@cache
def stock(upstream: Path) -> Mapping[str, Any]:
    """The configuration without any override, references resolved; not to be changed by who asks for it."""
    return _plain(upstream, resolve=True)


@cache
def references(upstream: Path) -> Mapping[str, Any]:
    """The same with its references `${...}` as they are written."""
    return _plain(upstream, resolve=False)


def _plain(upstream: Path, *, resolve: bool) -> Mapping[str, Any]:
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(_compose(upstream, ()), resolve=resolve)
    assert isinstance(config, dict)
    return {str(name): part for name, part in config.items()}


def require_composed(upstream: Path, overrides: Sequence[str]) -> None:
    """Require that Hydra takes the overrides over verl's own files.

    Raises:
        ConfigError: it does not; the message has its reason.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        _compose(upstream, tuple(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"verl's configuration cannot be put together: {reason}; correct [verl]") from None


@cache
def _compose(upstream: Path, overrides: tuple[str, ...]) -> Any:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_directory(upstream)), version_base=None):
        return compose(NAME, overrides=list(overrides))
