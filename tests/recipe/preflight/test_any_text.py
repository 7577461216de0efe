# SPDX-License-Identifier: Apache-2.0
"""Whatever is written into a run file, show, plan and preflight end with a result or with one clear line."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.__main__ import main
from recipe.checks.crash import REQUEST
from recipe.checks.facts.machine import this_machine
from recipe.checks.report import Report
from recipe.preflight import run_file
from recipe.tiny.config import tiny_fields

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
TEXTS = {name: (CONFIGS / f"{name}.toml").read_text(encoding="utf-8") for name in ("sim", "a3_256die")}
MACHINE = this_machine()
KEY = re.compile(r"^(\w+ = ).*$")
ODD = [
    "true", "[]", "[[1]]", "[" * 3000 + "]" * 3000, "{ a = 1 }", '""', "'/'", "'~nobody-of-that-name/y'", "'..'",
    "'\u8bad\u7ec3'", "1979-05-27", "9" * 5000, "9" * 400, "1e999", "nan", "'" + "n" * 5000 + "'", "'/dev/null'",
    "'/proc/self/mem'", '"a\\u0000"', "0", "-1", "",
]  # fmt: skip
NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats(width=32)).map(str)
VALUES = st.one_of(st.sampled_from(ODD), NUMBERS, st.text(max_size=12).map(lambda text: repr(text).replace("\\'", "")))


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A shipped run file with one or two edits of the kind that hands and editors make."""
    lines = TEXTS[draw(st.sampled_from(sorted(TEXTS)))].splitlines()
    for _ in range(draw(st.integers(1, 2))):
        keys = [number for number, line in enumerate(lines) if KEY.match(line)]
        if not keys:
            break
        place = draw(st.sampled_from(keys))
        match draw(st.sampled_from(["value", "value", "value", "drop", "twice", "letter", "cut"])):
            case "value":
                lines[place] = KEY.sub(lambda found: found[1] + draw(VALUES), lines[place])
            case "drop":
                del lines[place]
            case "twice":
                lines.insert(place, lines[place])
            case "letter":
                line, at = lines[place], draw(st.integers(0, len(lines[place])))
                lines[place] = line[:at] + draw(st.characters(codec="utf-8")) + line[at:]
            case "cut":
                del lines[place + 1 :]
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    return ending.join(lines).encode()


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """`show` looks at this machine in every call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipe.preflight.this_machine", lambda: MACHINE)
        yield


def said(command: str, file: Path) -> tuple[int, str]:
    """Exit code and standard error of `python -m recipe COMMAND FILE`."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main([command, str(file)])
    return code, errors.getvalue()


def outcome(file: Path) -> Report:
    """What preflight says, once show, plan and preflight have all ended as they should."""
    for command in ("show", "plan"):
        code, errors = said(command, file)
        assert code in (0, 2)
        lines = errors.splitlines()
        assert all(line.startswith("error: ") and len(line) < 2500 for line in lines)
        assert bool(lines) == (code != 0) and (command == "show" or len(lines) <= 1)
    report = run_file(file, node=False, cluster=False, machine=MACHINE)
    for finding in report.findings:
        line = finding.line
        assert finding.found and REQUEST not in finding.found and len(line) < 2500 and "\n" not in line
        assert finding.level == "not run" or (finding.expected and finding.fix)
    return report


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_key_takes_every_odd_value_or_refuses_it_in_lines(tmp_path: Path, name: str) -> None:
    file, lines = tmp_path / "run.toml", TEXTS[name].splitlines()
    for place in [number for number, line in enumerate(lines) if KEY.match(line)]:
        for value in ODD:
            spoilt_line = KEY.sub(lambda found, value=value: found[1] + value, lines[place])
            file.write_text("\n".join([*lines[:place], spoilt_line, *lines[place + 1 :]]), encoding="utf-8")
            code, errors = said("show", file)
            # What is wrong with the file's form is one line; each of the checks that refuse its values has one, too.
            told = errors.splitlines()
            assert code in (0, 2) and bool(told) == (code == 2), spoilt_line
            assert all(line.startswith("error: ") and len(line) < 1500 for line in told), spoilt_line


@given(content=spoilt())
@settings(max_examples=80, deadline=None)
def test_the_outcome_is_a_result_or_one_clear_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "spoilt.toml"
    file.write_bytes(content)
    outcome(file)


MODEL = "/shared/DeepSeek-V3-Base-torch_dist/huggingface"
# What is written in the place of what in which file, and what preflight says of it.
MISTAKES = [
    ("sim", "[cluster]\n", "[clutser]\n", "C001", "did you mean 'cluster'?"),
    ("sim", "[train]", "[actor]", "C001", "Cannot declare"),
    ("sim", "steps = 50", 'steps = "50"', "C001", "[run] steps is '50' (str)"),
    ("sim", "steps = 50", "steps = 50 steps", "C001", "not valid TOML"),
    ("sim", "nodes = 1", "nodes = 0", "C001", "[cluster] nodes is 0"),
    ("sim", "dies_per_node = 2", "dies_per_node = -2", "C001", "[cluster] dies_per_node is -2"),
    ("sim", "learning_rate = 3e-4", "learning_rate = inf", "C001", "learning_rate is inf"),
    ("sim", "learning_rate = 3e-4", "learning_rate = 3,0e-4", "C001", "not valid TOML"),
    ("sim", 'name = "sim"', "name = sim", "C001", "not valid TOML"),
    ("sim", 'name = "sim"', 'name = "../sim"', "C001", "run name '../sim'"),
    ("sim", 'name = "sim"', 'name = "\u8bad\u7ec3"', "C001", "run name"),
    ("sim", 'template = "r1_zero"', 'template = "FILE"', "D004", "unknown template"),
    ("sim", 'verifier = "r1_zero"', "mix = { r1_zero = -1.0 }", "D014", "r1_zero = -1.0"),
    ("sim", "workers = 0", "path = 'DIRECTORY'", "D007", "cannot be read"),
    ("a3_256die", MODEL, "FILE", "W001", "is not a directory"),
    ("a3_256die", MODEL, "DIRECTORY", "W001", "config.json is not there"),
    ("a3_256die", MODEL, "LIST", "W001", "holds no JSON object"),
    ("a3_256die", MODEL, "LLAMA", "W003", "hidden_size is missing; a model of type llama needs it"),
    ("a3_256die", MODEL, "TEXT", "W001", "cannot be read as JSON"),
    ("a3_256die", MODEL, "ROPE", "W003", "rope_scaling is 'yarn'"),
    ("a3_256die", MODEL, "ZERO", "W003", "n_routed_experts is 0; expected a whole number"),
    ("a3_256die", MODEL, f"/{'a' * 300}", "W001", "File name too long"),
    ("a3_256die", '/shared/DeepSeek-V3-Base-torch_dist"  #', 'FILE"  #', "W007", "is not a directory"),
    ("a3_256die", "/shared/deepscaler/train.parquet", "FILE", "D002", "no Parquet file that can be read"),
    ("a3_256die", "/shared/deepscaler/train.parquet", "DIRECTORY", "D001", "is not a file"),
    ("a3_256die", 'head = "192.0.2.1"', 'head = ""', "C001", "'' is no address"),
    ("a3_256die", 'optimizer = "swapped"', "swap_optimizer = true", "C001", "did you mean 'optimizer'?"),
    ("a3_256die", "dies_per_node = 16", "dies_per_node = 16\nray_port = 61001", "C002", "move one of them"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files and directories that mistakes point to, by the word that stands for them."""
    root = tmp_path_factory.mktemp("places")
    fields = {**tiny_fields(), "model_type": "deepseek_v3"}
    contents = {
        "LIST": "[1, 2]",
        "TEXT": "{not json",
        "LLAMA": json.dumps({"model_type": "llama", "num_hidden_layers": 2}),
        "ROPE": json.dumps(fields | {"rope_scaling": "yarn"}),
        "ZERO": json.dumps(fields | {"n_routed_experts": 0}),
    }
    for name, text in contents.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(text)
    (root / "FILE").write_text("x")
    (root / "DIRECTORY").mkdir()
    return {name: str(root / name) for name in (*contents, "FILE", "DIRECTORY")}


@pytest.mark.parametrize(("name", "old", "new", "id", "text"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_of_people_is_told(
    tmp_path: Path, places: dict[str, str], name: str, old: str, new: str, id: str, text: str
) -> None:
    assert TEXTS[name].count(old) >= 1
    for word, place in places.items():
        new = new.replace(word, place)
    file = tmp_path / "run.toml"
    file.write_text(TEXTS[name].replace(old, new, 1), encoding="utf-8")
    report = outcome(file)
    lines = [finding.line for finding in report.findings if finding.id == id]
    assert any(text in line for line in lines), report.lines()
