# SPDX-License-Identifier: Apache-2.0
"""The pattern in a Python file: literals are read, and everything else is refused without being run."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.tokenizer.pattern import Literals, read_literals, read_pattern_file
from recipe.weights.errors import WeightsError


def literals(directory: Path, code: str) -> Literals:
    (directory / "tokenization_x.py").write_text(code)
    return read_literals(directory)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pat_str = 'a|b'", Literals("a|b", None)),
        ("pat_str: str = r'\\s' '|b'", Literals("\\s|b", None)),
        (
            "class T:\n    num_reserved_special_tokens = 256\n    pat_str = '|'.join([r'\\s+', 'b'])",
            Literals("\\s+|b", 256),
        ),
        ("class T:\n    def __init__(self):\n        self.pat_str = '|'.join(('a', 'b'))", Literals("a|b", None)),
        ("pat_str = 'a'\nclass T:\n    pat_str = 'a'", Literals("a", None)),
        ("import os\nos._exit(1)\npat_str = 'a'", Literals("a", None)),
    ],
)
def test_literals(code: str, expected: Literals, tmp_path: Path) -> None:
    assert literals(tmp_path, code) == expected


@pytest.mark.parametrize(
    "code",
    [
        "pat_str = 'a' + 'b'",
        "pat_str = f'{1}'",
        "pat_str = b'a'",
        "pat_str = open('x').read()",
        "pat_str = '|'.join(['a', PART])",
        "pat_str = '|'.join(parts)",
        "pat_str = '|'.join([*parts])",
        "pat_str = '|'.join(['a'], ['b'])",
        "pat_str = '|'.replace(['a'])",
        "pat_str = BAR.join(['a'])",
        "pat_str = ['a', 'b']",
        "pat_str = 'a'\npat_str = 'b'",
        "pat_str = 'a'\npat_str += 'b'",
        "pat_str = 'a'\nT.pat_str = other()",
        "pat_str = 'a'\nif (pat_str := other()):\n    pass",
    ],
)
def test_anything_else_is_refused(code: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"pat_str is not one string, nor .* --pattern-file$"):
        literals(tmp_path, code)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1", "none of tokenization"),
        ("(" * 5000, "is not Python"),
        ("pat_str = 'a'\0", "is not Python"),
        ("#" * 2**20 + "\n\n", "more than a tokenizer's Python file has"),
        ("pat_str = 'a'\nnum_reserved_special_tokens = True", "is not one number"),
        ("pat_str = 'a'\nnum_reserved_special_tokens = 1\nnum_reserved_special_tokens = 2", "is not one number"),
    ],
)
def test_a_file_that_says_nothing(code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        literals(tmp_path, code)


def test_a_pattern_in_a_file_keeps_its_blanks(tmp_path: Path) -> None:
    file = tmp_path / "pattern"
    file.write_bytes(b" ?\\w+| \r\n")
    assert read_pattern_file(file) == " ?\\w+| "


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff"])
def test_a_file_without_one_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pattern").write_bytes(content)
    with pytest.raises(WeightsError, match=r"pattern: "):
        read_pattern_file(tmp_path / "pattern")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_pattern_file(tmp_path / "absent")
