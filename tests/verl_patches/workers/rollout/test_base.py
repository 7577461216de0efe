# SPDX-License-Identifier: Apache-2.0
"""verl's rollout registry leads to ours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from verl.workers.rollout.base import get_rollout_class


@pytest.mark.proves("verl_patches.workers.rollout.base:sync_rollout")
def test_the_synchronous_rollout_is_a_subclass_of_verls() -> None:
    chosen = get_rollout_class("vllm", "sync")
    from verl.workers.rollout.vllm_rollout.vllm_rollout_spmd import vLLMRollout

    assert chosen.__name__ == "NPURollout"
    assert issubclass(chosen, vLLMRollout)


@pytest.mark.proves("verl_patches.workers.rollout.base:async_rollout")
def test_the_asynchronous_rollout_stops_instead_of_running_unadapted() -> None:
    with pytest.raises(NotImplementedError, match=r"set actor_rollout_ref\.rollout\.mode=sync"):
        get_rollout_class("vllm", "async")(config=None, model_config=None, device_mesh=None)


def test_gpus_have_verls_own_rollout() -> None:
    code = """
import sys
sys.modules["torch_npu"] = None
import verl_patches.prelude_patch
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
print(sorted(_ROLLOUT_REGISTRY.values()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "verl_patches" not in done.stdout and "vLLMRollout" in done.stdout
