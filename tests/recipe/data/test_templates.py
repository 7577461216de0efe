# SPDX-License-Identifier: Apache-2.0
"""Prompt templates: the committed file and the errors of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.data.rows import DataError
from recipe.data.templates import get_template, load_templates


def test_r1_zero_has_one_backslash_and_a_system_message() -> None:
    system, user = get_template("r1_zero").messages("What is $\\frac{1}{2}$ of {x}?")
    assert system["role"] == "system" and user["role"] == "user"
    assert system["content"].count("\\") == 1 and "\\boxed{}" in system["content"]
    assert user["content"] == "What is $\\frac{1}{2}$ of {x}?"


def test_plain_is_the_problem_alone() -> None:
    assert get_template("plain").messages("p {problem}") == [{"role": "user", "content": "p {problem}"}]


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"unknown template 'r2'; templates\.toml has: plain, r1_zero"):
        get_template("r2")


@pytest.mark.parametrize(
    "text", ["a = 1", "[a]\nuser = 'no place'", "[a]\nuser = 1", "[a]\nuser='{problem}'\nsystem=2", "[a]\nusr='x'", "["]
)
def test_bad_templates_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=r"own\.toml"):
        load_templates(file)
