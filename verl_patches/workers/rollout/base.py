# SPDX-License-Identifier: Apache-2.0
"""Rollout classes by name: verl picks the NPU rollout where it would have picked its own."""

from recipe.overlay import patch
from verl_patches.devices import with_npus


@patch(
    "verl.workers.rollout.base:_ROLLOUT_REGISTRY",
    key=("vllm", "sync"),
    kind="registry",
    why="vLLM's sleep mode cannot release memory on an NPU, and the rollout needs expert parallelism, the Ascend "
    "scheduler and MLA's derived weights",
    upstream="verl==0.6.1",
    fingerprint="sha256:9a3530eefdc4d797c9692277cc53220bb6d6b8c8afab1702791d5d793908ab19",
    remove_when="verl's vLLM rollout can leave sleep mode off and release memory by itself",
    when=with_npus,
)
def sync_rollout() -> str:  # NPU-ADAPTATION: verl builds our subclass of its vLLM rollout
    """Dotted name of the class for `rollout.name=vllm`, `rollout.mode=sync`."""
    return "verl_patches.workers.rollout.vllm_rollout.npu_rollout.NPURollout"


@patch(
    "verl.workers.rollout.base:_ROLLOUT_REGISTRY",
    key=("vllm", "async"),
    kind="registry",
    why="the asynchronous rollout would silently run without any of the NPU changes",
    upstream="verl==0.6.1",
    fingerprint="sha256:9a3530eefdc4d797c9692277cc53220bb6d6b8c8afab1702791d5d793908ab19",
    remove_when="the asynchronous rollout has been adapted to the NPU",
    when=with_npus,
)
def async_rollout() -> str:  # NPU-ADAPTATION: rollout.mode=async stops with a message instead of running unadapted
    """Dotted name of the class for `rollout.name=vllm`, `rollout.mode=async`."""
    return "verl_patches.workers.rollout.vllm_rollout.npu_rollout.UnsupportedAsyncRollout"
