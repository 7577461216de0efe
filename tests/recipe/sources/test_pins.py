# SPDX-License-Identifier: Apache-2.0
"""`upstreams.toml`: malformed entries, unknown names, and the pins of this repository."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

import pytest

from recipe.sources import pins

REPO = Path(__file__).resolve().parents[3]
UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[sim.x]\nversion = '1'\nfile = 'x.whl'\nsha256 = 'abc'\npackages = ['x']\n", "64 hex digits"),
        ("[sim.x]\nversion = '1'\nfile = '../x.whl'\nsha256 = '" + "0" * 64 + "'\npackages = ['x']\n", "needs file="),
        ("[sim.x]\nversion = '1'\ngit = 'g'\ncommit = 'abc'\npackages = ['x']\n", "not a full commit"),
        ("[sim.x]\nversion = '1'\nhash = 'abc'\n", "unexpected keyword argument 'hash'"),
        ("[sim\n", "not valid TOML"),
    ],
)
def test_malformed_pins(checkout, text, says):
    checkout.pin(text)
    assert says in checkout.fails()


def test_unknown_profile(checkout):
    assert "has no profile 'b4'; it has sim" in checkout.fails("--profile", "b4", code=2)


def test_both_profiles_of_this_repository_are_well_formed():
    sim, a3 = (pins.read_pins(REPO / "upstreams.toml").profile(name) for name in ("sim", "a3"))
    assert {pin.name: pin.version for pin in sim.pins} == {
        "verl": "0.6.1", "vllm": "0.9.1", "vllm-ascend": "0.9.1", "megatron-core": "0.12.1"}  # fmt: skip
    assert all(pin.sha256 and not pin.git for pin in sim.pins) and all(pin.git and pin.commit for pin in a3.pins)
    assert {pin.name for pin in a3.pins} == {pin.name for pin in sim.pins} | {"mindspeed"}


def test_entry_points_of_the_git_pins_are_those_that_a_build_writes():
    """By the metadata of the released archives of the same versions; commands that users type are left out."""
    a3 = pins.read_pins(REPO / "upstreams.toml").profile("a3")
    seen = 0
    for pin in a3.pins:
        built = configparser.ConfigParser(delimiters="=")
        built.read(UPSTREAM / pin.dist_info / "entry_points.txt")
        expected = {group: dict(built[group]) for group in built.sections() if group != "console_scripts"}
        if (UPSTREAM / pin.dist_info).is_dir() and pin.name != "mindspeed":
            assert pin.entry_points == expected, pin.name
            seen += len(expected)
    assert seen == 3


def test_upstream_of_this_repository_has_the_prelude_line_where_it_belongs():
    prelude = pins.read_pins(REPO / "upstreams.toml").profile("sim").prelude
    lines = (UPSTREAM / prelude.file).read_text().split("\n")
    assert lines[lines.index(prelude.after) + 1] == prelude.line and lines.count(prelude.line) == 1
