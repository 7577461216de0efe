# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe model-config`: what verl can read, from a directory or a name, and never over another file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recipe.__main__ import main
from recipe.models.families import describe
from recipe.models.published import CONFIGS, KNOWN
from recipe.tiny.published import CONFIG
from recipe.weights.hf_directory import plain_config


def model(directory: Path, **changes: Any) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    return directory


def test_a_directory_without_weights_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = model(tmp_path / "in"), tmp_path / "new" / "out"
    assert main(["model-config", str(source), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}/config.json: written\n"
    made = json.loads((out / "config.json").read_text())
    assert made == {k: v for k, v in CONFIG.items() if k != "quantization_config"} | {"num_nextn_predict_layers": 0}
    # The same bytes as beside weights that are cast.
    assert (out / "config.json").read_bytes() == plain_config(CONFIG, "BF16")
    assert main(["model-config", str(source), "--out", str(out)]) == 0
    assert "there already, the same" in capsys.readouterr().out
    assert main(["model-config", str(source)]) == 0 and json.loads(capsys.readouterr().out) == made


@pytest.mark.parametrize("name", CONFIGS)
def test_a_name_gives_the_published_sizes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(CONFIGS) == set(KNOWN)
    assert main(["model-config", name]) == 0
    made = json.loads(capsys.readouterr().out)
    assert describe(made) == KNOWN[name] and made.get("num_nextn_predict_layers", 0) == 0
    assert "quantization_config" not in made and made["model_type"] != "kimi_k2"  # which the pinned vLLM lacks


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"quantization_config": None, "torch_dtype": "float16"}, "torch_dtype", "float16"),
        ({"quantization_config": None, "dtype": "float32"}, "dtype", "float32"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype", "bfloat16"),
        ({"quantization_config": None, "torch_dtype": ["odd"]}, "torch_dtype", "bfloat16"),
    ],
)
def test_the_type_of_weights_stays_unless_they_are_quantised(
    changes: dict[str, Any], key: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model-config", str(model(tmp_path / "in", **changes))]) == 0
    assert json.loads(capsys.readouterr().out)[key] == expected


def test_another_file_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = model(tmp_path / "in")
    before = (source / "config.json").read_bytes()
    assert main(["model-config", str(source), "--out", str(source)]) == 2  # its own, too
    assert "is another file, and stays" in capsys.readouterr().err
    assert (source / "config.json").read_bytes() == before and os.listdir(source) == ["config.json"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no config.json"), ("{", "not valid JSON"), ("[]", "expected a JSON object, found list")],
)
def test_a_source_that_cannot_be_read_is_one_line(
    content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert main(["model-config", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and error.count("\n") == 1
    assert main(["model-config", "deepseek_v4"]) == 2
    assert "no architecture that is known here (deepseek_v3_671b, " in capsys.readouterr().err
    assert main(["model-config", "deepseek_v3_671b", "--out", "/proc/nowhere"]) == 2
    assert "/proc/nowhere/config.json: cannot be written" in capsys.readouterr().err
