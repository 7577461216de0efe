# SPDX-License-Identifier: Apache-2.0
"""Whatever numbers a run file holds, preflight ends with a report, and it lets through what has a layout only."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.checks.crash import REQUEST
from recipe.checks.facts.machine import this_machine
from recipe.preflight import run
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.layout import lay_out
from recipe.runfile.schema import RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
RUNS = {file.stem: load(file) for file in CONFIGS.glob("*.toml")}
MACHINE = this_machine()
NUMBERS = st.one_of(st.integers(0, 12), st.sampled_from([16, 31, 32, 61, 128, 256, 511, 512, 10**6, 10**12]))


def _keys(config: RunConfig) -> list[tuple[str, str, type]]:
    """Every number of the run file, as section, key and type."""
    found: list[tuple[str, str, type]] = []
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        if dataclasses.is_dataclass(values):
            found += [
                (section.name, field.name, type(getattr(values, field.name)))
                for field in dataclasses.fields(values)
                if type(getattr(values, field.name)) in (int, float)
            ]
    return found


@st.composite
def changed_runs(draw: st.DrawFn) -> RunConfig:
    config = RUNS[draw(st.sampled_from(sorted(RUNS)))]
    keys = _keys(config)
    for _ in range(draw(st.integers(1, 3))):
        section, key, kind = draw(st.sampled_from(keys))
        value: Any = kind(draw(NUMBERS))
        config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{key: value})})
    if draw(st.booleans()):
        stages = draw(st.lists(st.integers(0, 20), min_size=1, max_size=9))
        config = dataclasses.replace(config, actor=dataclasses.replace(config.actor, stage_layers=stages))
    return config


@given(changed_runs())
@settings(max_examples=120, deadline=None)
def test_a_report_is_made_and_passes_only_what_has_a_layout(config: RunConfig) -> None:
    report = run(config, node=False, machine=MACHINE)
    assert report.lines() and not any(REQUEST in finding.found for finding in report.findings)
    assert all(
        finding.found and (finding.level == "not run" or (finding.expected and finding.fix))
        for finding in report.findings
    )
    if report.ok:
        lay_out(config, config.data.max_prompt_tokens)


@pytest.mark.parametrize(
    ("section", "key"), [("rollout", "tensor_parallel"), ("actor", "tensor_parallel"), ("actor", "expert_parallel")]
)
@pytest.mark.parametrize("name", sorted(RUNS))
def test_no_ranks_at_all_are_an_error_of_the_layout(name: str, section: str, key: str) -> None:
    """`load` refuses the number; what options or programs make of a run is looked at all the same."""
    part = dataclasses.replace(getattr(RUNS[name], section), **{key: 0})
    report = run(dataclasses.replace(RUNS[name], **{section: part}), node=False, machine=MACHINE)
    assert "L001" in {finding.id for finding in report.errors}


def test_what_has_no_layout_is_an_error() -> None:
    config = dataclasses.replace(RUNS["sim"], cluster=dataclasses.replace(RUNS["sim"].cluster, dies_per_node=3))
    with pytest.raises(ConfigError):
        lay_out(config)
    assert not run(config, node=False, machine=MACHINE).ok
