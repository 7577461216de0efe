# SPDX-License-Identifier: Apache-2.0
"""A run that does not ask for records has none, and loads nothing for them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from recipe.mismatch import switch
from recipe.own_packages import REPOSITORY


def prompts(step: int | None, validate: bool = False) -> Any:
    return SimpleNamespace(meta_info={"global_steps": step, "validate": validate})


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was recorded; the recorders themselves need the engines."""
    calls: list[str] = []

    def recorder(name: str) -> Any:
        def record(compute: Any, *arguments: Any) -> Any:
            calls.append(f"{name} {arguments[-1]}")
            return compute(*arguments[1:-1]) if name == "rollout" else compute(*arguments[:-1])

        return record

    for name, function in (("rollout", "record_generation"), ("actor", "record_log_prob")):
        module = SimpleNamespace(**{function: recorder(name)})
        monkeypatch.setitem(sys.modules, f"recipe.mismatch.{name}_recorder", module)
    monkeypatch.setattr(switch, "_step", None)
    monkeypatch.setenv("RECIPE_RUN_DIR", "/run")
    return calls


def one_step(step: int, validate: bool = False) -> None:
    asked = prompts(step, validate)
    assert switch.around_generation(lambda given: given, "rollout", asked) is asked
    assert switch.around_log_prob(lambda worker, data: (worker, data), "worker", "data") == ("worker", "data")


def test_only_the_steps_that_are_asked_for(recorded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.STEPS_VARIABLE, "2-3")
    for step in (1, 2, 3, 4):
        one_step(step)
    assert recorded == [f"{name} /run/records/step_{step}" for step in (2, 3) for name in ("rollout", "actor")]


def test_a_validation_is_no_part_of_its_step(recorded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.STEPS_VARIABLE, "2")
    one_step(2, validate=True)
    assert recorded == []


def test_nothing_is_recorded_or_loaded_unless_asked(recorded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(switch.STEPS_VARIABLE, raising=False)
    one_step(2)
    assert recorded == []
    heavy = "import sys, recipe.mismatch.switch as s; print(sorted({'torch', 'numpy', 'vllm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
