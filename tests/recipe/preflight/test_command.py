# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe preflight`: what it lists, what it refuses, and what it does without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from recipe.checks.catalogue import every_check
from recipe.checks.declaration import RUNS

REPO = Path(__file__).resolve().parents[3]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recipe", "preflight", *arguments], cwd=REPO, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_static_part_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from recipe.__main__ import main\n"
        "code = main(['preflight', 'configs/a3_256die.toml', '--no-cluster', '--json'])\n"
        "heavy = sorted({'torch', 'transformers', 'ray', 'torch_npu', 'vllm'} & set(sys.modules))\n"
        "print(heavy, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 2)
    assert len(report["passed"]) > 40


def test_the_checks_of_a_run_are_listed() -> None:
    listed = command("--list")
    assert listed.returncode == 0 and "L001  static" in listed.stdout
    declared = json.loads(command("--list", "--json").stdout)
    assert all(set(check) == {"id", "title", "needs", "why", "fix"} for check in declared)
    of_a_run = [check.id for check in every_check() if check.needs != RUNS]
    assert [check["id"] for check in declared] == of_a_run
    assert listed.stdout.endswith(f"{len(of_a_run)} checks; docs/PREFLIGHT.md has the reasons\n")


def test_the_command_refuses_what_is_no_run_file(tmp_path: Path) -> None:
    assert command().returncode == 2
    broken = tmp_path / "run.toml"
    broken.write_text("[run\n")
    refused = command(str(broken))
    assert refused.returncode == 2 and "C001 error" in refused.stdout
