# SPDX-License-Identifier: Apache-2.0
"""Which patches concern a model: those that the description of its family names, and those that none does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from recipe.models.config_file import read_config
from recipe.models.families import FAMILIES, family_of
from recipe.models.family import Family, ModelError
from recipe.models.published import CONFIGS
from recipe.overlay.declaration import Declaration
from recipe.overlay.errors import OverlayError


def models_of(patch: str) -> list[str]:
    """The model_types for whose models alone the patch of this id changes anything; none: it does for all."""
    return [model_type for model_type, family in FAMILIES.items() if patch in family.patches]


def concerning(family: Family, patches: Iterable[Declaration]) -> list[Declaration]:
    """The patches that change something for models of the family."""
    return [patch for patch in patches if patch.id in family.patches or not models_of(patch.id)]


def family_named(model: str) -> Family:
    """The family of a model: a name that [model] architecture takes, a model_type, or a directory with config.json.

    Raises OverlayError for another text, or a model that cannot be trained here.
    """
    if model in FAMILIES:
        return FAMILIES[model]
    try:
        config = CONFIGS.get(model) or read_config(Path(model).expanduser())
        if config is not None:
            return family_of(config)
    except ModelError as error:
        raise OverlayError(f"--model {model}: {error}") from None
    known = ", ".join({**FAMILIES, **CONFIGS})
    raise OverlayError(f"--model {model}: neither a directory with config.json nor one of {known}")
