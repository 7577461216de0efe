# SPDX-License-Identifier: Apache-2.0
"""The ports of a run: what is planned for HCCL, Ray and the dashboard does not meet, and what does is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.ports import planned, require_apart
from recipe.runfile.schema import RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
NPU = load(CONFIGS / "a3_256die.toml")
# What Linux hands out to a program that does not care: verl's rendezvous and vLLM's columns take theirs from here.
HANDED_OUT = range(32768, 61000)


def with_ports(**ports: Any) -> RunConfig:
    return dataclasses.replace(NPU, cluster=dataclasses.replace(NPU.cluster, **ports))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_run_files_keep_them_apart(path: Path) -> None:
    config = load(path)
    require_apart(config)
    for ports in planned(config).values():
        assert ports[-1] < HANDED_OUT[0] or ports[0] > HANDED_OUT[-1]


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ({"hccl_base_port": 6370}, "HCCL"),
        ({"hccl_base_port": 6379 - 31}, "Ray, GCS"),
        ({"dashboard_port": 61031}, "move one of them"),
        ({"dashboard_port": 6400}, "dashboard"),
        ({"ray_port": 60990}, "HCCL"),
        ({"ray_port": 65500}, "beyond 65535"),
    ],
)
def test_ports_that_meet_are_refused(ports: dict[str, int], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_apart(with_ports(**ports))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@given(st.integers(1024, 65535), st.integers(1024, 65535), st.integers(1024, 65504), st.sampled_from([1, 8, 16, 64]))
def test_what_is_accepted_has_every_port_once(ray: int, dashboard: int, hccl: int, dies: int) -> None:
    config = with_ports(ray_port=ray, dashboard_port=dashboard, hccl_base_port=hccl, dies_per_node=dies)
    every = [port for ports in planned(config).values() for port in ports]
    try:
        require_apart(config)
    except ConfigError:
        assert len(set(every)) < len(every) or max(every) > 65535
        return
    assert len(set(every)) == len(every) and max(every) <= 65535
