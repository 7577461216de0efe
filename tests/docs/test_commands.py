# SPDX-License-Identifier: Apache-2.0
"""Every command that a page tells its reader to type.

Run where it only looks, run up to the reader's own files that are not here, or else parsed by the very tool.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages, tools
from tests.docs.pages import FOLLOWED, PAGES, REPO
from tests.docs.translation import original

WHERE: dict[str, list[str]] = {}
for _page in PAGES:
    for _line in pages.commands(_page):
        WHERE.setdefault(_line, []).append(_page)
OURS = [line for line in WHERE if tools.command(line)]
# A command of these needs what the one before has made; tests/end_to_end/test_your_model.py goes through them.
IN_ORDER = {"docs/YOUR_MODEL.md", "docs/zh/YOUR_MODEL.md"}
ELSEWHERE = [line for line in WHERE if not set(WHERE[line]) <= {FOLLOWED, *IN_ORDER}]
# They change nothing, and need nothing but this tree.
LOOK = [
    line
    for line in OURS
    if line in ELSEWHERE
    and re.search(
        r"-m recipe (sync --check|patches (list|verify)$|plan|show|preflight .*--no-cluster|doctor(?! runs/))", line
    )
    and not re.search(r"\b(RUN|NAME|DIR|MODEL)\b", line)
]
# What they read is the reader's.
MISS = [
    line
    for line in OURS
    if re.search(
        r"(json_to_parquet|convert_\w+|fp8_cast_bf16)\.py --|"
        r"-m recipe (report|doctor runs/|mismatch runs/|patches (status|verify --))",
        line,
    )
    and "..." not in line
]

# Those of `modelscope download` that pages use, as modelscope 1.40.2 has them; the package is not installed here.
MODELSCOPE = {"--dataset", "--model", "--local_dir"}
# Options of tools that are not ours, and the page that names them, in either language.
OF_OTHERS = {
    "docs/LAUNCH.md": {"--network"},  # docker's, in scripts/run_container.sh
    "docs/PLAN.md": {"--swap-optimizer-times"},  # MindSpeed's
    "npu_sim/README.md": {"--no-build-isolation"},  # pip's
}


def once(lines: list[str]) -> list[str]:
    """Without those that differ in the name of the interpreter alone."""
    return list({str(tools.command(line)): line for line in lines}.values())


@pytest.fixture(autouse=True)
def _as_a_reader_s_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RECIPE_") and name != "RECIPE_CACHE_DIR"]:
        monkeypatch.delenv(name)


def test_there_is_something_to_test() -> None:
    assert len(PAGES) >= 14 and len(OURS) > 60 and len(LOOK) > 10 and len(MISS) > 10
    assert len([page for page in PAGES if pages.commands(page)]) >= len(PAGES) - 2


@pytest.mark.parametrize("line", OURS)
def test_the_tool_takes_the_command(line: str) -> None:
    assert tools.fault(line) is None, WHERE[line]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_shell_block_says_can_be_pasted(page: str) -> None:
    """No brackets around options, nothing left out, and an interpreter that is there after set-up or everywhere."""
    for line in [one for language, block in pages.blocks(page) if language == "bash" for one in block.splitlines()]:
        assert not re.search(r" \[|\.\.\. |(^|&& )python ", line), f"{page}: {line}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("python -m recipe plan RUN.toml --no-such", "unrecognized arguments: --no-such"),
        ("python -m recipe plan RUN.toml --expert-load much", "invalid float value: 'much'"),
        ("python -m recipe lunch", "invalid choice: 'lunch'"),
        ("scripts/launch.sh RUN.toml --heads A", "unrecognized arguments: --heads"),
        ("scripts/train_deepseekv3_256die_true_weight.sh RUN.toml", "unrecognized arguments: RUN.toml"),
        ("bash scripts/quickstart.sh --stepz N", "quickstart.sh has no --stepz"),
        ("json_to_parquet.py ... --mapping '{}'", "json_to_parquet.py has no --mapping"),
        ("scripts/convert_hf_to_mcore.py --load-dir IN --format pickle --save-dir OUT", "invalid choice: 'pickle'"),
        ("scripts/fp8_cast_bf16.py --load-dir IN", "required"),
        ("python -m recipe.data.samples --number N --out FILE", "unrecognized arguments: --number"),
    ],
)
def test_a_page_that_says_it_wrong_is_caught(line: str, said: str) -> None:
    assert said in (tools.fault(line) or "")


@pytest.mark.parametrize("line", once(LOOK))
def test_what_only_looks_is_run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    wanted = tools.command(line)
    assert wanted is not None
    told = tools.run(wanted)
    # doctor's exit code tells what is wrong with this machine, which is not the page's business.
    assert told.code == 0 or "doctor" in line, told.out + told.err
    assert told.out.strip()


@pytest.mark.parametrize("line", once(MISS))
def test_what_reads_the_reader_s_files_misses_only_those(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = tools.command(line)
    assert wanted is not None
    told = tools.run(wanted)
    assert told.code in (1, 2) and told.err.startswith("error: ") and told.err.count("\n") == 1, told.out + told.err
    named = [word for word in wanted.arguments if word in told.err and not word.startswith("-")]
    assert named, told.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", [line for line in ELSEWHERE if line not in OURS])
def test_the_commands_of_other_tools(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "docker":
        assert words[1] == "build" and (REPO / words[words.index("-f") + 1]).is_file() and words[-1] == "."
    elif words[1:3] == ["-m", "pytest"]:
        assert [word for word in words if word.startswith("tests/")]
        assert all((REPO / word.partition("::")[0]).exists() for word in words if word.startswith("tests/"))
    elif words[0] == "hf":
        taken = subprocess.run(
            [sys.executable, "-m", "huggingface_hub.cli.hf", *words[1:2], "--help"], capture_output=True, text=True
        )
        assert all(word in taken.stdout for word in words if word.startswith("--")), taken.stderr
    elif words[0] == "modelscope":
        assert words[1] == "download" and {word for word in words if word.startswith("--")} <= MODELSCOPE
    elif words[1:3] == ["-m", "torch_npu.limits.page"]:
        assert (REPO / words[3]).is_file()
    else:
        assert re.search(r"(^|/)pip$", words[0]) and words[1] in ("install", "download")
        for word in words[2:]:
            assert not word.endswith(".txt") or (REPO / word).is_file()
            assert not word.startswith("./") or (REPO / word / "pyproject.toml").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_alone_belong_to_a_tool_of_the_page(page: str) -> None:
    named = [tools.command(line) for line in OURS if page in WHERE[line]]
    known = OF_OTHERS.get(original(page), set()).union(*(tools.options(one) for one in named if one))
    assert not set(pages.bare_options(page)) - known


@pytest.mark.parametrize(
    ("tool", "of_tool"),
    [
        ("python -m recipe node", ["docs/LAUNCH.md"]),
        ("python -m recipe launch", ["docs/SIMULATED_RUN.md"]),
        ("scripts/json_to_parquet.py", ["docs/DATA.md"]),
        ("scripts/fp8_cast_bf16.py", ["docs/WEIGHTS.md"]),
        ("scripts/convert_mcore_to_hf.py", ["docs/WEIGHTS.md", "docs/WEIGHTS_MEGATRON.md"]),
        ("scripts/convert_hf_to_mcore.py", ["docs/WEIGHTS.md", "docs/WEIGHTS_LEGACY.md"]),
    ],
)
def test_every_option_of_a_tool_stands_on_its_page(tool: str, of_tool: list[str]) -> None:
    wanted = tools.command(tool)
    assert wanted is not None
    named = {option for page in of_tool for option in pages.bare_options(page)}
    named |= {word for page in of_tool for line in pages.commands(page) for word in line.split()}
    missing = {option for option in tools.options(wanted) if option.startswith("--")} - named - {"--help"}
    assert not missing, of_tool


def test_the_container_s_start_script_of_the_pages_finds_a_host_s_devices(tmp_path: Path) -> None:
    for name in ("davinci0", "davinci_manager", "devmm_svm", "hisi_hdc"):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    (tmp_path / "usr/local/Ascend/driver/lib64").mkdir(parents=True)
    lines = [line for line in OURS if "run_container.sh --" in line]
    assert lines
    for line in lines:
        dry = re.sub("/shared|/data", str(tmp_path), line).replace("run_container.sh", "run_container.sh --dry-run")
        words = shlex.split(dry)
        done = subprocess.run(
            words, cwd=REPO, capture_output=True, text=True, timeout=30, check=False,
            env={**os.environ, "RECIPE_DEV": str(tmp_path / "dev"), "RECIPE_HOST_ROOT": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout.startswith("docker run "), done.stderr
