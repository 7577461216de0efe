# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe tokenizer-json`: the ids of a tiktoken tokenizer, in a directory that AutoTokenizer loads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.__main__ import main
from recipe.own_packages import REPOSITORY
from tests.recipe.tokenizer.model_files import NAMED, PATTERN, RESERVED, TEXTS, V1, trained_ranks, write_model

RANKS = trained_ranks(TEXTS, 1200)
FIRST = len(RANKS)
SPECIAL = {NAMED.get(place, f"<|reserved_token_{FIRST + place}|>"): FIRST + place for place in range(RESERVED)}
TRY = ["It's 12345 boxes; they'LL", "中文English混合 123中", "aaaaaaa\n\n  \n x", "😀 👩‍👧 é", "a[EOS]b<tool>[PAD]", ""]


def reference_ids(text: str, ranks: dict[bytes, int], pattern: str, special: dict[str, int]) -> list[int]:
    """tiktoken's algorithm, with allowed_special="all"."""
    ids: list[int] = []
    for place, part in enumerate(re.split("(" + "|".join(map(re.escape, special)) + ")", text) if special else [text]):
        if place % 2:
            ids.append(special[part])
            continue
        for piece in regex.finditer(pattern, part, V1):
            parts = [bytes([byte]) for byte in piece[0].encode()]
            while (whole := b"".join(parts)) not in ranks or len(parts) > 1:
                if whole in ranks:
                    parts = [whole]
                    break
                joined = [(ranks[a + b], at) for at, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ranks]  # noqa: B905, RUF007
                if not joined:
                    break
                at = min(joined)[1]
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            ids += [ranks[part] for part in parts]
    return ids


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model's directory, and what was made of it."""
    source = write_model(tmp_path_factory.mktemp("model") / "Moonlight", RANKS)
    out = source.parent / "out"
    assert main(["tokenizer-json", str(source), "--out", str(out)]) == 0
    return source, out


@pytest.fixture(scope="module")
def loaded(converted: tuple[Path, Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(converted[1], local_files_only=True)


parts = st.one_of(
    st.text("".join(TEXTS), max_size=30),
    st.text("ab 's\n\t中", max_size=20),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=10),
    st.sampled_from(list(SPECIAL)[:20]),
)


@settings(max_examples=2000, deadline=None)
@given(text=st.lists(parts, max_size=5).map("".join))
def test_every_text_has_the_ids_of_the_reference_and_comes_back(text: str, loaded: Any) -> None:
    ids = loaded(text, add_special_tokens=True)["input_ids"]
    assert ids == reference_ids(text, RANKS, PATTERN, SPECIAL)
    assert loaded.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=12),
    texts=st.lists(st.text("abc", max_size=40), min_size=5, max_size=5),
)
def test_any_vocabulary_has_them(pairs: list[tuple[int, int]], texts: list[str]) -> None:
    """Tokens that one pair or another makes, in any order of ranks, of which training would make a few."""
    from recipe.tokenizer.fast import fast_tokenizer

    ranks, tokens = {bytes([byte]): byte for byte in range(256)}, [b"a", b"b", b"c"]
    for left, right in pairs:
        token = tokens[left % len(tokens)] + tokens[right % len(tokens)]
        if token not in ranks:
            ranks[token] = len(ranks)
            tokens.append(token)
    tokenizer = fast_tokenizer(ranks, r"\w+", [])
    for text in texts:
        assert tokenizer.encode(text).ids == reference_ids(text, ranks, r"\w+", {})


def test_what_transformers_knows_of_it_is_what_the_model_s_files_say(converted: tuple[Path, Path], loaded: Any) -> None:
    source, out = converted
    before = json.loads((source / "tokenizer_config.json").read_text())
    after = json.loads((out / "tokenizer_config.json").read_text())
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"auto_map", "tokenizer_class", "added_tokens_decoder"} and "auto_map" not in after
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (FIRST, FIRST + 1, FIRST + 255)
    assert loaded.get_added_vocab() == SPECIAL and len(loaded) == FIRST + RESERVED
    ids = loaded.apply_chat_template([{"role": "user", "content": "a[PAD]"}])
    assert ids == [FIRST + 3, ord("a"), FIRST + 255, FIRST + 2]
    # One that the model's files do not call special stays in what is shown.
    assert loaded.decode(loaded("[BOS]x<tool>")["input_ids"], skip_special_tokens=True) == "x<tool>"


def test_in_place_the_former_configuration_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_model(tmp_path / "model", RANKS)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    before = (source / "tokenizer_config.json").read_bytes()
    names = {file.name for file in source.iterdir()}
    assert main(["tokenizer-json", str(source), "--dry-run"]) == 0
    assert {file.name for file in source.iterdir()} == names
    assert main(["tokenizer-json", str(source)]) == 0
    assert (source / "tokenizer_config.original.json").read_bytes() == before
    assert {file.name for file in source.iterdir()} - names == {"tokenizer.json", "tokenizer_config.original.json"}
    made = {file: file.read_bytes() for file in source.iterdir()}
    capsys.readouterr()
    assert (
        main(["tokenizer-json", str(source)]) == 0
        and "tokenizer.json: there already, the same" in capsys.readouterr().out
    )
    assert made == {file: file.read_bytes() for file in source.iterdir()}
    assert main(["tokenizer-json", str(source), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_another_file_stays_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_model(tmp_path / "model", RANKS), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    assert main(["tokenizer-json", str(source), "--out", str(out)]) == 2
    assert f"{name} is another file, and stays" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == [name] and (out / name).read_text() == "{}"


def test_a_pattern_from_a_file(tmp_path: Path) -> None:
    source = write_model(tmp_path / "model", RANKS)
    (source / "tokenization_moonshot.py").unlink()
    (tmp_path / "pattern.txt").write_text(PATTERN + "\n")
    out = tmp_path / "out"
    assert (
        main(["tokenizer-json", str(source), "--pattern-file", str(tmp_path / "pattern.txt"), "--out", str(out)]) == 0
    )
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert [tokenizer.encode(text).ids for text in TRY] == [
        reference_ids(text, RANKS, PATTERN, SPECIAL) for text in TRY
    ]


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        file = source / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _named(id: int, name: Any) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        file = source / "tokenizer_config.json"
        config = json.loads(file.read_text())
        config["added_tokens_decoder"][str(id)] = {"content": name}
        file.write_text(json.dumps(config))

    return change


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def edit(source: Path) -> None:
        file = source / "tiktoken.model"
        file.write_text("\n".join(change(file.read_text().splitlines())))

    return edit


def _code(text: str) -> Callable[[Path], None]:
    return lambda source: (source / "tokenization_moonshot.py").write_text(text) and None


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no ranks": (lambda source: (source / "tiktoken.model").unlink(), "tiktoken.model: cannot be read"),
    "a pointer": (_lines(lambda _: ["version https://git-lfs.github.com/spec/v1"]), "a Git LFS pointer"),
    "no rank": (_lines(lambda lines: [*lines[:5], "AAAA", *lines[5:]]), "tiktoken.model:6: b'AAAA'; expected a token"),
    "no base64": (_lines(lambda lines: [*lines[:5], "AAA 7"]), "tiktoken.model:6"),
    "a token again": (_lines(lambda lines: [*lines, lines[3].split()[0] + " 99999"]), "the token of line 4"),
    "a rank again": (_lines(lambda lines: [*lines, "enp6enp6 3"]), "the rank of line 4, 3"),
    "a rank left out": (_lines(lambda lines: lines[:300] + lines[301:]), "none of rank 300"),
    "a byte left out": (
        _lines(lambda lines: ["enp6enp6 0", *lines[1:]]), "no token for the byte 0x00 (1 of 256 bytes have none)",
    ),
    "no code": (lambda source: (source / "tokenization_moonshot.py").unlink(), "none of tokenization_*.py"),
    "two files": (
        lambda source: shutil.copy(source / "tokenization_moonshot.py", source / "tokenization_kimi.py"),
        "tokenization_kimi.py, tokenization_moonshot.py of tokenization_*.py with a pat_str; expected one",
    ),
    "no Python": (_code("pat_str = ("), "is not Python that can be read"),
    "a computed number": (_code("pat_str = 'a'\nnum_reserved_special_tokens = 2**8"), "is not one number (line 2)"),
    "a pattern that is none": (_code("pat_str = '(a'"), "the pattern '(a' cannot be used"),
    "a pattern that leaves text out": (_code("pat_str = '[a-z]+'"), "a pattern that means the same to both"),
    "a pattern with two readings": (_code(r"pat_str = r'\p{N}{1,3}+|\P{N}+'"), "a pattern that means the same to both"),
    "too small a vocabulary": (
        lambda source: (source / "config.json").write_text(json.dumps({"vocab_size": FIRST + 255})),
        f"{FIRST} ranks and 256 special tokens, and vocab_size = {FIRST + 255} in config.json",
    ),
    "no vocab_size": (lambda source: (source / "config.json").write_text("{}"), "vocab_size is None"),
    "a token beyond": (_named(FIRST + 256, "[X]"), "257 special tokens, and vocab_size"),
    "a token far beyond": (_named(10**8, "[X]"), "special tokens, and vocab_size"),
    "a token among the ranks": (_named(5, "[X]"), "'[X]' has the id 5, that of a rank"),
    "a name twice": (_named(FIRST + 20, "[EOS]"), f"'[EOS]' has two ids, {FIRST + 1} and {FIRST + 20}"),
    "a name of a rank": (_named(FIRST + 20, "a"), "the special token 'a' is the ordinary token 97 too"),
    "no name": (_named(FIRST + 20, 7), "expected an id and a token with its content"),
    "no tokens": (_config(added_tokens_decoder=["[BOS]"]), "expected an id and a token with its content"),
    "an end that is no token": (_config(eos_token={"content": "</s>"}), "eos_token is '</s>'"),
    "another that is none": (_config(additional_special_tokens=["<x>"]), "additional_special_tokens is '<x>'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_used_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_model(tmp_path / "model", RANKS)
    spoil, said = SPOILT[name]
    spoil(source)
    before = {file: file.read_bytes() for file in source.iterdir()}
    assert main(["tokenizer-json", str(source)]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.startswith("error: ") and shown.err.count("\n") == 1 and not shown.out
    assert before == {file: file.read_bytes() for file in source.iterdir()}


def test_a_wrong_merge_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recipe.tokenizer import fast

    pairs = fast._pairs
    monkeypatch.setattr(fast, "_pairs", lambda ranks: list(pairs(ranks))[:-20])
    source = write_model(tmp_path / "model", RANKS)
    assert main(["tokenizer-json", str(source)]) == 2
    assert "by the ranks" in capsys.readouterr().err and not (source / "tokenizer.json").exists()


def test_it_needs_no_torch_and_no_transformers(tmp_path: Path) -> None:
    source = write_model(tmp_path / "model", RANKS)
    look = (
        "import sys; from recipe.__main__ import main; code = main(['tokenizer-json', sys.argv[1]]); "
        "print(code, [name for name in ('torch', 'transformers', 'tiktoken') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, str(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=REPOSITORY,
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
