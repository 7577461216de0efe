# SPDX-License-Identifier: Apache-2.0
"""Text of others does nothing where it is shown: on a terminal, in a line of a log, on a page."""

from __future__ import annotations

import io
import re
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.checks.declaration import Check
from recipe.checks.finding import bad
from recipe.clock import Clock
from recipe.text import error_text, error_with_place, printable, printable_lines, spelled_out

FORBIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("12 + 5 = 17, 中文, é, 🙂", "12 + 5 = 17, 中文, é, 🙂"),
        ("\x1b[31mred\x1b[0m \x1b[2J\x1b[Hgone", "red gone"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]never ended, so all is shown", "never ended, so all is shown"),
        ("\x1bPq#0\x1b\\image", "image"),
        ("\x1bc\x1b(Breset", "reset"),
        ("half\x1b", "half"),
        ("over\rwritten\bx", "over written x"),
        ("a\nb\tc\x00d\x7fe\x85f\u2028g\u2029h", "a b c d e f g h"),
        ("abc\u202edef\u2066ghi", "abcdefghi"),
        ("ze\u200bro\u2060-\ufeffwidth\u00ad", "zero-width"),
        ("hang\u3164ul\u115f", "hangul"),
        ("tag\U000e0041s", "tags"),
        ("lone \ud800 and \udcff", "lone \ufffd and \ufffd"),
        ("no\u00a0break", "no break"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None), max_size=40) | st.text("\x1b[]0;m\x07\\\x9b\x9d\r\n\u202eab", max_size=40))
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    line = printable(text)
    assert not [letter for letter in line if unicodedata.category(letter) in FORBIDDEN]
    line.encode("utf-8")
    assert printable(line) == line
    lines = printable_lines(text)
    assert not [c for c in lines if unicodedata.category(c) in FORBIDDEN and c not in "\n\t"]
    assert not [letter for letter in spelled_out(text) if unicodedata.category(letter) in FORBIDDEN and letter != "\n"]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays(text: str) -> None:
    assert printable(text) == printable_lines(text) == spelled_out(text) == text


def test_lines_stay_lines() -> None:
    assert printable_lines("one\r\n\ttwo\rthree\x1b[A\n") == "one\n\ttwo\nthree\n"
    assert spelled_out("a\x1b[A\u200b\n") == "a\\x1b[A\\u200b\n"


LONG = ["\x1b]" * 300_000, "\x1b[" + "0" * 600_000, "\x1b" * 600_000, "\x1b]" + "a" * 600_000]


@pytest.mark.parametrize("text", LONG, ids=["OSC", "CSI", "ESC", "open"])
def test_a_long_text_takes_no_long_time(text: str) -> None:
    start = time.process_time()
    printable(text)
    assert time.process_time() - start < 5


def test_a_line_of_the_launcher_is_one_line() -> None:
    out = io.StringIO()
    Clock(out).say("turned away \x1b]0;x\x07me\nerror: forged\u202e")
    assert out.getvalue() == "[0:00] turned away me error: forged\n"


def test_a_finding_is_one_line() -> None:
    check = Check("X001", "a title", "static", "", "", lambda facts: iter([bad("\x1b[2Jrow", "a\u202eb", "c")]))
    (finding,) = check.findings(None) or []  # type: ignore[arg-type]
    assert finding.line == "X001 error: row; expected ab; c"


class Unspeakable(Exception):
    """Its own message cannot be made."""

    def __str__(self) -> str:
        raise ValueError("no words")


def test_an_exception_is_told_in_one_line() -> None:
    assert error_text(ValueError("one\n  of two lines")) == "ValueError: one of two lines"
    assert error_text(AssertionError()) == "AssertionError"
    assert error_text(Unspeakable()) == "Unspeakable"


def test_an_error_without_words_is_the_statement_that_raised_it() -> None:
    def caught(work: Callable[[], object]) -> str:
        with pytest.raises(AssertionError) as error:
            work()
        return error_with_place(error.value)

    def silent() -> None:
        raise (
            AssertionError
        )  # fmt: skip

    assert re.fullmatch(
        rf"AssertionError at {re.escape(__file__)}:\d+: raise \((?: AssertionError \).*)?", caught(silent)
    )
    assert error_with_place(AssertionError("no room")) == "AssertionError: no room"
    assert error_with_place(AssertionError()) == "AssertionError"
