# SPDX-License-Identifier: Apache-2.0
"""The real torch.compile for the rollout, and what training had put there before and after."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from verl_patches.compile_toggle import true_compile


@pytest.fixture
def mindspeed(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """torch.compile and torch.jit.script replaced as MindSpeed does it, and its patch manager holding the originals."""

    def dummy_compile(*args: Any, **kwargs: Any) -> Any:
        return args[0] if args else lambda function: function

    dummy_compile.__module__ = "mindspeed.core.megatron_basic.requirements_basic"
    real = SimpleNamespace(compile=torch.compile, script=torch.jit.script)
    manager = ModuleType("mindspeed.patch_utils")
    patches = {
        "torch.compile": SimpleNamespace(orig_func=torch.compile),
        "torch.jit.script": SimpleNamespace(orig_func=torch.jit.script),
    }
    manager.MindSpeedPatchesManager = SimpleNamespace(patches_info=patches)  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, "mindspeed.patch_utils", manager)
    monkeypatch.setattr(torch, "compile", dummy_compile)
    monkeypatch.setattr(torch.jit, "script", dummy_compile)
    yield SimpleNamespace(real=real, dummy=dummy_compile, patches=patches)


def test_the_real_functions_are_there_only_within_the_block(mindspeed: SimpleNamespace) -> None:
    with true_compile():
        assert torch.compile is mindspeed.real.compile
        assert torch.jit.script is mindspeed.real.script
    assert torch.compile is mindspeed.dummy
    assert torch.jit.script is mindspeed.dummy


def test_the_replacement_returns_after_an_exception(mindspeed: SimpleNamespace) -> None:
    with pytest.raises(KeyError), true_compile():
        raise KeyError
    assert torch.compile is mindspeed.dummy


def test_blocks_nest(mindspeed: SimpleNamespace) -> None:
    with true_compile():
        with true_compile():
            pass
        assert torch.compile is mindspeed.real.compile
    assert torch.compile is mindspeed.dummy


def test_a_repatch_within_the_block_keeps_its_newer_function(mindspeed: SimpleNamespace) -> None:
    newer = lambda function: function  # noqa: E731  any other object
    with true_compile():
        torch.compile = newer
    assert torch.compile is newer


def test_nothing_is_touched_where_nothing_was_replaced() -> None:
    before = torch.compile
    with true_compile():
        assert torch.compile is before
    assert torch.compile is before


def test_an_unknown_mindspeed_is_refused_instead_of_compiling_to_nothing(mindspeed: SimpleNamespace) -> None:
    del mindspeed.patches["torch.compile"]
    with pytest.raises(RuntimeError, match=r"torch\.compile is mindspeed.*dummy_compile"), true_compile():
        pass
    assert torch.jit.script is mindspeed.dummy
