# SPDX-License-Identifier: Apache-2.0
"""The four tools as processes of their own, on inputs of any size, for the tests that hold for all of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recipe.tiny.config import Fp8Model
from recipe.tiny.fp8 import make_fp8_model
from recipe.weights import cast, torch_dist
from recipe.weights.hf_checkpoint import INDEX_NAME
from recipe.weights.job import run_job
from recipe.weights.workspace import WORK

REPOSITORY = Path(__file__).resolve().parents[3]
# The process: the size of output files (a killed run does one again for each worker) is chosen here, for a job of many.
# With its last words it tells the most memory that it had, in KiB: resident, and addresses.
DRIVER = """
import importlib, resource, sys
file_bytes, address_space, module, *arguments = sys.argv[1:]
if int(address_space):
    resource.setrlimit(resource.RLIMIT_AS, (int(address_space),) * 2)
from recipe.weights import mcore_to_hf, torch_dist
torch_dist.FILE_BYTES = mcore_to_hf.SHARD_BYTES = int(file_bytes)
code = importlib.import_module(module).main(arguments)
status = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
print("most", *(status[name].split()[0] for name in ("VmHWM", "VmPeak")))
sys.exit(code)
"""


def nothing_published(output: Path) -> bool:
    """Whether an output directory is not there, or holds no more than whole files for the same command to go on."""
    return not output.exists() or [path.name for path in output.iterdir()] == [WORK]


@dataclass(frozen=True)
class Inputs:
    """The same model as each tool wants it."""

    fp8: Path
    bf16: Path
    torch_dist: Path
    file_bytes: int


def make_inputs(directory: Path, model: Fp8Model, file_bytes: int) -> Inputs:
    """Make the model and what other tools make of it."""
    inputs = Inputs(directory / "fp8", directory / "bf16", directory / "torch_dist", file_bytes)
    make_fp8_model(model, inputs.fp8, lambda line: None)
    run_job(cast.plan_cast(inputs.fp8, inputs.bf16).job)
    run_job(torch_dist.plan(inputs.fp8, inputs.torch_dist).job)
    return inputs


@dataclass(frozen=True)
class Tool:
    """A tool; arguments: its command line for an output. commit_point: without it no reader takes the output."""

    name: str
    module: str
    arguments: Callable[[Inputs, Path], list[str]]
    commit_point: str

    def command(self, inputs: Inputs, output: Path, address_space: int = 0, workers: int = 2) -> list[str]:
        """The process; address_space in bytes, 0 for no limit."""
        own = [*self.arguments(inputs, output), "--workers", str(workers)]
        return [sys.executable, "-c", DRIVER, str(inputs.file_bytes), str(address_space), self.module, *own]

    def start(self, inputs: Inputs, output: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(inputs, output), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def run(self, inputs: Inputs, output: Path) -> None:
        """Run to the end."""
        done = subprocess.run(
            self.command(inputs, output), cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr

    def is_taken_for_complete(self, output: Path) -> bool:
        """Whether the reader of this format would load the directory, by the file that it asks for first."""
        return (output / self.commit_point).exists()


def _cast(inputs: Inputs, output: Path) -> list[str]:
    return ["--input-fp8-hf-path", str(inputs.fp8), "--output-bf16-hf-path", str(output)]


def _torch_dist(inputs: Inputs, output: Path) -> list[str]:
    return ["--load-dir", str(inputs.fp8), "--save-dir", str(output)]


def _legacy(inputs: Inputs, output: Path) -> list[str]:
    split = ["--target-tensor-parallel-size", "2", "--target-expert-parallel-size", "2", "--moe-grouped-gemm"]
    return [*_torch_dist(inputs, output), "--format", "legacy", *split, "--moe-tp-extend-ep"]


def _to_hf(inputs: Inputs, output: Path) -> list[str]:
    return ["--load-dir", str(inputs.torch_dist), "--save-dir", str(output), "--hf-config", str(inputs.bf16)]


TOOLS = (
    Tool("cast", "recipe.weights.cast_cli", _cast, INDEX_NAME),
    Tool("torch_dist", "recipe.weights.convert", _torch_dist, ".metadata"),
    Tool("legacy", "recipe.weights.convert", _legacy, "latest_checkpointed_iteration.txt"),
    Tool("mcore_to_hf", "recipe.weights.mcore_to_hf", _to_hf, INDEX_NAME),
)
