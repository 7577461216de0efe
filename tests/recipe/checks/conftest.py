# SPDX-License-Identifier: Apache-2.0
"""Runs that no check has anything to say about, on machines that exist only here; tests spoil one thing each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from recipe.checks.catalogue import check_named
from recipe.checks.crash import REQUEST
from recipe.checks.facts.dies import DieFacts
from recipe.checks.facts.machine import Machine
from recipe.checks.facts.packages import requirements
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CheckFinding
from recipe.runfile.config import load
from recipe.runfile.schema import RunConfig
from recipe.sources.compose import wanted
from recipe.sources.pins import read_pins

REPO = Path(__file__).resolve().parents[3]
CONFIGS = REPO / "configs"
GIB = 2**30


def changed(config: RunConfig, **values: Any) -> RunConfig:
    """The run with other values; the first "_" after the section's name is the dot: rollout_top_p is rollout.top_p."""
    for name, value in values.items():
        if name in ("environment", "reward"):
            config = replace(config, **{name: value})
            continue
        section, _, key = name.partition("_")
        config = replace(config, **{section: replace(getattr(config, section), **{key: value})})
    return config


def crashed(findings: Iterable[CheckFinding]) -> list[str]:
    """What a check that broke is said to have raised: preflight goes on, and tests must not."""
    return [finding.line for finding in findings if REQUEST in finding.found]


@dataclass
class World:
    """One run on one machine. `spoil` functions change it in place."""

    root: Path
    config: RunConfig
    machine: Machine
    upstream: Path
    repo: Path
    node: bool = True
    more: dict[str, Any] = field(default_factory=dict)

    def set(self, **values: Any) -> None:
        self.config = changed(self.config, **values)

    def set_machine(self, **values: Any) -> None:
        self.machine = replace(self.machine, **values)

    def set_environ(self, **values: str) -> None:
        self.set_machine(environ={**self.machine.environ, **values})

    def edit_json(self, file: Path, **values: Any) -> None:
        content = json.loads(file.read_text(encoding="utf-8")) | values
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    @property
    def facts(self) -> Facts:
        runs = self.root / "runs"
        return Facts(self.config, self.machine, self.node, self.upstream, self.repo, runs=runs, **self.more)

    def findings(self, id: str) -> list[CheckFinding] | None:
        findings = check_named(id).findings(self.facts)
        assert not crashed(findings or ())
        return findings


def machine(**values: Any) -> Machine:
    """A node of 16 dies with nothing wrong."""
    usual: dict[str, Any] = {
        "host": "node0",
        "python": (3, 11, 9),
        "packages": {},
        "environ": {"PATH": "/usr/bin"},
        "cpus": 320,
        "memory": 2000 * GIB,
        "memory_available": 1950 * GIB,
        "shm_free": 500 * GIB,
        "limits": {"nofile": 1048576, "nproc": None, "memlock": None},
        "dies": 16,
        "gpus": 0,
        "driver": "25.0.rc1",
        "interfaces": {"lo": "127.0.0.1", "eth0": "10.1.1.1"},
        "listening": frozenset({22}),
        "ephemeral_ports": (32768, 60999),
        "clock_set": True,
        "now": 1.8e9,
        "processes": (),
        "path": (),
        "free_bytes": lambda path: 100_000 * GIB,
    }
    return Machine(**usual | values)


def synced(root: Path, profile: str) -> Path:
    """An upstream tree as a sync of this repository's pins leaves it, of one file."""
    tree = root / f"upstream-{profile}"
    (tree / "verl").mkdir(parents=True)
    (tree / "verl" / "__init__.py").write_text("")
    pins = wanted(read_pins(REPO / "upstreams.toml").profile(profile), REPO).digest()
    manifest = {
        "profile": profile, "beside": [], "state": "ours", "pins": pins,
        "files": {"verl/__init__.py": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    }  # fmt: skip
    (tree / "MANIFEST.json").write_text(json.dumps(manifest))
    return tree


@pytest.fixture
def cluster(tmp_path: Path) -> World:
    """The published run on 256 dies, on its head node, with all of its files elsewhere."""
    config = changed(
        load(CONFIGS / "a3_256die.toml"),
        run_output_dir=str(tmp_path / "runs"),
        cluster_head="10.1.1.1",
        cluster_host_memory_gib_per_node=2000.0,
    )
    home = tmp_path / "cann"
    home.mkdir()
    here = machine(packages={"torch-npu": "2.5.1.post1"}, environ={"PATH": "/usr/bin", "ASCEND_HOME_PATH": str(home)})
    dies = DieFacts((config.hbm_bytes_per_die,) * 16)
    return World(tmp_path, config, here, synced(tmp_path, "a3"), REPO, more={"dies": dies})


@pytest.fixture
def laptop(tmp_path: Path) -> World:
    """The simulated run of sim.toml on a laptop."""
    wanted_packages = requirements(REPO / "requirements-sim.txt", (3, 11))
    here = machine(
        packages={**wanted_packages, "npu-sim": "0.1.0"}, cpus=2, dies=0, driver=None, memory=24 * GIB,
        memory_available=20 * GIB, shm_free=12 * GIB, limits={"nofile": 20000, "nproc": 96000, "memlock": 8 * 2**20},
        clock_set=None,
    )  # fmt: skip
    config = changed(load(CONFIGS / "sim.toml"), run_output_dir=str(tmp_path / "runs"))
    return World(tmp_path, config, here, synced(tmp_path, "sim"), REPO)


@pytest.fixture
def legal(laptop: World) -> World:
    """The strict run of the model whose sizes an NPU takes."""
    laptop.config = changed(load(CONFIGS / "sim_legal.toml"), run_output_dir=laptop.config.run.output_dir)
    return laptop


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/ (config.json, tokenizer), checkpoint/ (headers, and holes for the tensors), train.json, Parquet files."""
    from recipe.data.parquet import convert
    from recipe.data.templates import get_template
    from recipe.tiny.config import tiny_fields
    from recipe.tiny.tokenizer import save_tokenizer

    root = tmp_path_factory.mktemp("small")
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text(json.dumps(tiny_fields()))
    save_tokenizer(root / "model")
    write_checkpoint(root / "checkpoint", tiny_fields())
    records = [{"problem": f"What is {n} + 1?", "answer": str(n + 1), "solution": ""} for n in range(40)]
    (root / "problems.json").write_text(json.dumps(records))
    convert(root / "problems.json", root, get_template("r1_zero"), train_data_ratio=0.8)
    return root


def write_checkpoint(directory: Path, config: dict[str, Any]) -> None:
    """The headers of a torch_dist checkpoint of this model, every tensor in one file of holes."""
    from recipe.weights.dcp_metadata import FORMAT, Blob, Chunk, StoredTensor, metadata_pickle
    from recipe.weights.key_maps import layout_of
    from recipe.weights.layout import MegatronLayout

    layout: MegatronLayout = layout_of(config, directory)
    tensors: dict[str, StoredTensor] = {}
    for place in layout.places:
        for name in place.names:
            if name in tensors:
                continue
            whole = Chunk((0,) * len(place.shape), place.shape, Blob("__0_0.distcp", 512 * len(tensors), 512))
            tensors[name] = StoredTensor("BF16", place.shape, [whole])
    directory.mkdir()
    (directory / ".metadata").write_bytes(metadata_pickle(tensors, (), Blob("__0_0.distcp", 0, 512)))
    (directory / "metadata.json").write_text(json.dumps(FORMAT))
    (directory / "common.pt").write_bytes(b"")
    with open(directory / "__0_0.distcp", "wb") as file:
        file.truncate(512 * len(tensors))


@pytest.fixture
def files(laptop: World, small_files: Path) -> World:
    """A simulated run of a model and data that lie in files, each a copy of its own."""
    import shutil

    root = laptop.root / "shared"
    shutil.copytree(small_files, root)
    laptop.set(
        model_kind="path", model_path=str(root / "model"), model_checkpoint=str(root / "checkpoint"),
        data_kind="parquet", data_train_path=str(root / "train.parquet"),
        data_validation_path=str(root / "test.parquet"), train_prompts_per_step=4,
    )  # fmt: skip
    return laptop


Spoil = Callable[[World], Any]
