# SPDX-License-Identifier: Apache-2.0
"""The Ray that a driver starts for itself, in the place of a `recipe.launch.cluster.RayCluster`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from recipe.clock import Clock
from recipe.launch.ray_node import ray_version
from recipe.runfile.paths import RunPaths
from recipe.runfile.schema import RunConfig


class OwnRay:
    """The same interface as `RayCluster`, with nothing to do: the driver starts this Ray from its overrides."""

    interface: str | None = None
    overrides: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.environment = own_authentication()

    @contextmanager
    def formed(
        self, config: RunConfig, paths: RunPaths, environment: Mapping[str, str], clock: Clock
    ) -> Iterator[None]:
        """Within the block there is no other node that could be lost."""
        yield None


def own_authentication() -> dict[str, str]:
    """The environment that makes this Ray demand a token that is in no file; empty where its version cannot.

    Ray listens on loopback, where any user of the machine could otherwise have it run anything.
    """
    if ray_version() < (2, 52):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
