# SPDX-License-Identifier: Apache-2.0
"""Provisional."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipe.launch.config import RunConfig


def require_loadable(before: Mapping[str, Any], config: RunConfig, what: str) -> None:
    pass
