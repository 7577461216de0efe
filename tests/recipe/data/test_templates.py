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


def test_r1_zero_as_one_text_is_what_deepseeks_chat_template_makes_of_it() -> None:
    template = get_template("r1_zero")
    system = template.messages("")[0]["content"]
    assert template.text("1 + {system}?") == f"{system}<｜User｜>1 + {{system}}?<｜Assistant｜>"  # noqa: RUF001


def test_every_template_has_single_backslashes_only() -> None:
    for template in load_templates().values():
        text = template.text("p")
        assert "\\\\" not in text and "p" in text, template.name
    assert get_template("boxed_cot").text("p").count("\\boxed{}") == 1


def test_a_file_of_the_users(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text("[only]\nuser = 'Q: {problem}'\nchat = 'U {user} A'")
    assert get_template(str(file)).text("p") == "U Q: p A"
    two = tmp_path / "two.toml"
    two.write_text("[a]\nuser = 'A {problem}'\n[b]\nuser = 'B {problem}'")
    assert get_template(f"{two}:b").messages("p") == [{"role": "user", "content": "B p"}]
    with pytest.raises(DataError, match=r"name one of its templates as two\.toml:NAME; it has: a, b"):
        get_template(str(two))
    with pytest.raises(DataError, match=r"unknown template 'c'; two\.toml has: a, b"):
        get_template(f"{two}:c")
    with pytest.raises(DataError, match=r"absent\.toml: .*No such file"):
        get_template(str(tmp_path / "absent.toml"))


def test_plain_is_the_problem_alone() -> None:
    assert get_template("plain").messages("p {problem}") == [{"role": "user", "content": "p {problem}"}]


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        DataError, match=r"unknown template 'r2'; templates\.toml has: answer_line, boxed_cot, plain, r1_zero \("
    ):
        get_template("r2")


@pytest.mark.parametrize(
    "text",
    [
        "a = 1",
        "[a]\nuser='{problem}'\nchat='no place'",
        "[a]\nuser='{problem}'\nsystem='s'\nchat='{user}'",
        "[a]\nuser = 'no place'",
        "[a]\nuser = 1",
        "[a]\nuser='{problem}'\nsystem=2",
        "[a]\nusr='x'",
        "[",
    ],
)
def test_bad_templates_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=r"own\.toml"):
        load_templates(file)
