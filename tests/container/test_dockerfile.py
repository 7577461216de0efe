# SPDX-License-Identifier: Apache-2.0
"""The NPU container, which cannot be built here: its syntax, its pins, and that all it copies is there."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[2]
NAME = "Dockerfile.vllm_ascend.mindspeed.deepseekV3"


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory: pytest.TempPathFactory) -> DockerfileParser:
    # The parser opens its file for writing too; it gets a copy.
    copy = tmp_path_factory.mktemp("docker") / "Dockerfile"
    copy.write_bytes((REPO / NAME).read_bytes())
    return DockerfileParser(str(copy))


def instructions(dockerfile: DockerfileParser, name: str) -> list[str]:
    return [one["value"] for one in dockerfile.structure if one["instruction"] == name]


def pins(file: str) -> dict[str, str]:
    """Package -> version of a requirements file, which must be exact."""
    found = {}
    for line in (REPO / file).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        one = Requirement(text)
        (exact,) = list(one.specifier)
        assert exact.operator == "==" and "*" not in exact.version, f"{file}: {text}"
        found[one.name.lower()] = exact.version
    return found


def test_it_is_a_dockerfile_of_known_instructions(dockerfile: DockerfileParser) -> None:
    known = {"ARG", "FROM", "SHELL", "ENV", "RUN", "COPY", "WORKDIR", "USER", "CMD", "COMMENT"}
    found = [one["instruction"] for one in dockerfile.structure]
    assert set(found) == known and found.count("FROM") == 1
    for form in ("SHELL", "CMD"):
        (value,) = instructions(dockerfile, form)
        assert all(isinstance(word, str) for word in json.loads(value))


def test_the_base_is_cann_8_2_rc1_for_a3_with_python_3_11(dockerfile: DockerfileParser) -> None:
    assert dockerfile.baseimage == "quay.io/ascend/cann:8.2.rc1-a3-ubuntu22.04-py3.11"


def test_it_says_that_it_has_not_been_built(dockerfile: DockerfileParser) -> None:
    assert "NOT BUILT YET" in dockerfile.content
    assert "has not been built" in (REPO / "docs" / "LAUNCH.md").read_text(encoding="utf-8")


def test_everything_copied_exists_and_reaches_the_build(dockerfile: DockerfileParser) -> None:
    sources = [word for value in instructions(dockerfile, "COPY") for word in value.split()[:-1]]
    assert len(sources) > 10
    for source in sources:
        assert (REPO / source).exists(), source
        assert not ignored(source), f"{source} is in .dockerignore"
    for mirror in REPO.glob("*_patches"):
        assert mirror.name in sources, f"{mirror.name} is not copied"


@pytest.mark.parametrize(
    "path",
    [
        "runs", ".venv", "upstream", ".git", "weights.safetensors", "recipe/__pycache__", "recipe/a/__pycache__/b.pyc",
        ".token", "scripts/.token", "configs/.env", "data/deepscaler/train.parquet", "data/mine.json",
        "docs/model/model-00001-of-00163.safetensors", "configs/out/__0_0.distcp", "npu_sim/setup.py", "tests",
    ],
)  # fmt: skip
def test_what_is_not_copied_does_not_reach_the_build(path: str) -> None:
    assert ignored(path)


def test_of_this_very_tree_only_sources_reach_the_build() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    wanted = {name for name in tracked.split("\0") if name and (REPO / name).is_file() and not ignored(name)}
    reached, total = set(), 0
    for directory, subdirectories, names in os.walk(REPO):
        here = Path(directory).relative_to(REPO)
        # As Docker does it for a list without names below: what is ignored is not gone through.
        subdirectories[:] = [one for one in subdirectories if one == "data" or not ignored(str(here / one))]
        for name in names:
            if not ignored(path := str(here / name)):
                reached.add(path)
                total += (REPO / path).stat().st_size
    assert wanted <= reached and {"recipe/__main__.py", "data/templates.toml", "scripts/launch.sh"} <= wanted
    strange = {name for name in reached - wanted if Path(name).suffix not in (".py", ".toml", ".md", ".sh", ".patch")}
    assert not strange and total < 16 * 2**20, f"{total} bytes, {strange}"


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps `path` out: the last pattern that matches it, or a directory above it, decides."""
    out = False
    for line in (REPO / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.lstrip("!").removeprefix("**/")
        above = [path, *(str(parent) for parent in Path(path).parents)][:-1] or [path]
        names = [*above, *(Path(one).name for one in above)] if "**/" in pattern else above
        if any(fnmatch.fnmatchcase(name, bare) for name in names):
            out = not pattern.startswith("!")
    return out


def test_what_both_lists_name_has_one_version() -> None:
    npu, sim = pins("requirements.txt"), pins("requirements-sim.txt")
    elsewhere = {"torch"}  # the NPU's is bound to torch-npu's
    different = {name for name in npu.keys() & sim.keys() if npu[name] != sim[name]}
    assert different == elsewhere
    # What only one of them has, and why it may.
    assert sim.keys() - npu.keys() == {"unearth", "tomli"}, "git instead of an index; Python 3.11"


def test_torch_and_torch_npu_are_the_pinned_pair() -> None:
    npu = pins("requirements.txt")
    assert (npu["torch"], npu["torch-npu"]) == ("2.5.1", "2.5.1.post1")


def test_the_upstreams_come_from_their_pins_and_from_nowhere_else(dockerfile: DockerfileParser) -> None:
    runs = "\n".join(instructions(dockerfile, "RUN"))
    assert "recipe sync --profile a3" in runs and "recipe patches verify" in runs
    npu = pins("requirements.txt")
    with open(REPO / "upstreams.toml", "rb") as file:
        a3 = tomllib.load(file)["a3"]
    assert set(a3) == {"verl", "vllm", "vllm-ascend", "mindspeed", "megatron-core"}
    assert not set(a3) & set(npu), "an upstream would be there twice"
    cloned = re.findall(r"git clone (\S+)", runs)
    assert cloned == ['"$APEX_URL"', '"$NVIDIA_APEX_URL"'], "all other sources are cloned by recipe sync, at a commit"


def test_apex_is_built_from_two_whole_commits(dockerfile: DockerfileParser) -> None:
    """A branch, a tag or an abbreviation may be something else tomorrow."""
    arguments = dict(value.split("=", 1) for value in instructions(dockerfile, "ARG"))
    runs = "\n".join(instructions(dockerfile, "RUN"))
    checked_out = re.findall(r"checkout \"\$(\w+)\"", runs)
    assert checked_out == ["APEX_COMMIT", "NVIDIA_APEX_COMMIT"] and runs.count("git clone") == len(checked_out)
    for name in checked_out:
        assert re.fullmatch("[0-9a-f]{40}", arguments[name]), f"{name}={arguments[name]}"
        assert arguments[name.replace("COMMIT", "URL")].startswith("https://github.com/")


def test_what_only_the_docs_and_scripts_change_does_not_fetch_the_upstreams_again(dockerfile: DockerfileParser) -> None:
    """Docker keeps the layers above the first file that changed."""
    steps = [(one["instruction"], one["value"]) for one in dockerfile.structure]
    sync = next(number for number, (name, value) in enumerate(steps) if name == "RUN" and "recipe sync" in value)
    before = {word for name, value in steps[:sync] if name == "COPY" for word in value.split()[:-1]}
    assert before == {"requirements.txt", "upstreams.toml", "recipe", *(one.name for one in REPO.glob("*_patches"))}


def test_cann_s_own_packages_stay_on_the_path(dockerfile: DockerfileParser) -> None:
    """The base sets PYTHONPATH and PATH for the operator compiler; ours go before."""
    (paths,) = (value for value in instructions(dockerfile, "ENV") if "PYTHONPATH" in value)
    assert re.search(r"PYTHONPATH=/opt/recipe:/opt/recipe/upstream:\$\{PYTHONPATH\}", paths)
    assert re.search(r" PATH=/opt/recipe/scripts:\$\{PATH\}", paths)
    names = [one["instruction"] for one in dockerfile.structure]
    assert "ENTRYPOINT" not in names, "the base's sources CANN's settings"


def test_pip_installs_the_list_and_apex_only(dockerfile: DockerfileParser) -> None:
    installed = re.findall(r"pip install (.*?)(?:;|&&|$)", "\n".join(instructions(dockerfile, "RUN")), re.MULTILINE)
    assert [one.strip() for one in installed] == [
        '"${index[@]}" -r /opt/recipe/requirements.txt',
        "--no-deps dist/apex-0.1+ascend-*.whl",
    ]


def test_its_shell_has_no_faults(dockerfile: DockerfileParser, tmp_path: Path) -> None:
    for number, value in enumerate(runs_as_scripts(dockerfile)):
        script = tmp_path / f"run{number}.sh"
        script.write_text("#!/usr/bin/env bash\nset -eo pipefail\n" + value + "\n", encoding="utf-8")
        check = [str(Path(sys.executable).with_name("shellcheck")), "--exclude=SC1091", str(script)]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def runs_as_scripts(dockerfile: DockerfileParser) -> Iterator[str]:
    assert json.loads(instructions(dockerfile, "SHELL")[0]) == ["/bin/bash", "-o", "pipefail", "-ec"]
    arguments = [value.partition("=")[0] for value in instructions(dockerfile, "ARG")]
    for value in instructions(dockerfile, "RUN"):
        yield "\n".join(f': "${{{name}:=}}"' for name in arguments) + "\n" + value


def test_the_first_command_needs_no_privilege(dockerfile: DockerfileParser) -> None:
    names = [one["instruction"] for one in dockerfile.structure]
    assert names.index("USER") > max(number for number, name in enumerate(names) if name == "RUN")
    assert instructions(dockerfile, "USER") == ["1000:1000"]
