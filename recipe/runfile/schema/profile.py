# SPDX-License-Identifier: Apache-2.0
"""`[profile]`: steps that the devices' profiler records."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.typed_toml import FREE, key

# The workers of verl that are recorded, by their names in its configuration.
PROFILED = ("actor", "ref")


def _settings(name: str) -> str:
    return ", ".join(f"{role}.profiler.{name}" for role in PROFILED)


_CONTENTS = _settings("tool_config.npu.contents")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """torch_npu's profiler in the workers, by verl's own means. docs/PROFILE.md says how to read what it leaves."""

    steps: list[int] = key(
        "steps to record, such as [3]; without any there is no profiler",
        [],
        least=1,
        gives=f"global_profiler, {_settings('enable')}",
        on_resume=FREE,
    )
    ranks: list[int] = key("dies to record, by their ranks", [0], gives=_settings("ranks"), on_resume=FREE)
    phases_apart: bool = key(
        "a recording of each phase; false: one of the step, in which phases are marks",
        False,
        gives=_settings("tool_config.npu.discrete"),
        on_resume=FREE,
    )
    level: str = key(
        "how much of a device is recorded: with level0 its tasks, with level1 the counters of its cores too, with "
        "level2 what the caches and the host's runtime do",
        "level1",
        choices=("level_none", "level0", "level1", "level2"),
        gives=_settings("tool_config.npu.level"),
        on_resume=FREE,
    )
    shapes: bool = key("with the shapes of operators' inputs", False, gives=_CONTENTS, on_resume=FREE)
    memory: bool = key("with what is allocated and freed", False, gives=_CONTENTS, on_resume=FREE)
    modules: bool = key("with the modules that call", False, gives=_CONTENTS, on_resume=FREE)
    stacks: bool = key("with the Python lines that call", False, gives=_CONTENTS, on_resume=FREE)
    parse: bool = key(
        "write what can be read at once; false: leave raw data, which costs the step less and is parsed later",
        True,
        gives=_settings("tool_config.npu.analysis"),
        on_resume=FREE,
    )

    @property
    def contents(self) -> list[str]:
        """What is recorded, in verl's names."""
        asked = {"shapes": self.shapes, "memory": self.memory, "module": self.modules, "stack": self.stacks}
        return ["npu", "cpu", *(name for name, wanted in asked.items() if wanted)]
