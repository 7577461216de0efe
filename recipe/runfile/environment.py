# SPDX-License-Identifier: Apache-2.0
"""The environment of every process of a run: the driver gets it from the launcher, Ray passes it on."""

from __future__ import annotations

from recipe.models.architecture import Architecture
from recipe.runfile.engines import syncs_directly
from recipe.runfile.errors import ConfigError
from recipe.runfile.layout import Layout
from recipe.runfile.paths import RunPaths, cache_dir, import_path
from recipe.runfile.schema import CUDA, NPU, SIM, RunConfig
from recipe.runfile.trackers import tracker_environment

# The variable by which a run's processes are told from all others.
RUN_ID = "RECIPE_RUN_ID"


def derived_environment(
    config: RunConfig,
    layout: Layout,
    paths: RunPaths,
    interface: str | None = None,
    *,
    model: Architecture | None = None,
    strict: bool = False,
) -> dict[str, str]:
    """What the run adds to the inherited environment, the same on every node but for the network interface.

    Args:
        config, layout, paths: the run.
        interface: this node's network interface to the other nodes; default: the run file's.
        model: its sizes, where they are known.
        strict: whether the simulator refuses what an NPU does not take.

    Raises:
        ConfigError: the run file's [environment] names a variable that is derived.
    """
    device = {SIM: _simulated, NPU: _npu, CUDA: _cuda}[config.cluster.device]
    derived = _common(config, layout, paths, model) | tracker_environment(config, paths)
    derived |= device(config, paths, interface or config.cluster.interface)
    if config.simulated:
        derived["NPU_SIM_STRICT"] = str(int(strict))
    for name in config.environment:
        if name in derived or name in SET_PER_PROCESS:
            value = f"it is {derived[name]!r} here" if name in derived else "each process has its own"
            raise ConfigError(f"[environment] {name} follows from the other sections ({value}); remove it")
    return derived | config.environment


# Set by Ray, verl and our rollout in every process.
SET_PER_PROCESS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "VLLM_DP_RANK", "VLLM_DP_RANK_LOCAL"),
    *("VLLM_HOST_IP", "VLLM_DP_MASTER_IP", "VLLM_DP_MASTER_PORT", "ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
)


def _common(config: RunConfig, layout: Layout, paths: RunPaths, model: Architecture | None) -> dict[str, str]:
    ascend = config.cluster.device != CUDA
    return {
        "PYTHONPATH": import_path(),
        "PYTHONUNBUFFERED": "1",
        # The driver never imports verl/workers/megatron_workers.py, where the prelude line is.
        "VERL_USE_EXTERNAL_MODULES": "verl_patches.prelude_patch",
        "VERL_FILE_LOGGER_PATH": str(paths.metrics),
        # Batches travel as arrays: torch.save takes many times as long, and torch.load can run code.
        "VERL_DATAPROTO_SERIALIZATION_METHOD": "numpy",
        "RECIPE_RUN_DIR": str(paths.run_dir),
        RUN_ID: paths.run_id,
        "TMPDIR": str(paths.scratch),
        # No usage reports; devices only for the actors that ask for them; every line of every worker's log.
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
        # Set although it is the default: which LLMEngine vLLM offers depends on the variable being there.
        "VLLM_USE_V1": "1",
        # Read by vLLM's ParallelConfig: engines of one instance share the experts.
        "VLLM_DP_SIZE": str(layout.rollout_data),
        "RECIPE_SPREAD_SAMPLES": str(int(config.rollout.spread_samples)),
        "RECIPE_REQUEST_SEEDS": str(int(config.rollout.request_seeds and ascend)),
        "RECIPE_REBALANCE": str(int(config.rollout.rebalance and ascend)),
        "RECIPE_DP_SYNC_ON_DEVICE": str(int(config.rollout.dp_sync_on_device and ascend)),
        "RECIPE_KEEP_UNTIL_SYNC": str(int(config.actor.keep_until_sync)),
        "RECIPE_DIRECT_SYNC": str(int(syncs_directly(config, model))),
        "RECIPE_DIRECT_SYNC_BUFFER_MIB": str(config.rollout.direct_sync_buffer_mib),
        "RECIPE_ROUTING_REPLAY": config.train.routing_replay,
        "RECIPE_STAGE_LAYERS": "" if layout.only_ends_differ else ",".join(map(str, layout.stage_layers)),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARN",
        "TOKENIZERS_PARALLELISM": "false",
        # Model and tokenizer are files of the run; nothing is looked up in the network.
        "HF_HUB_OFFLINE": "1",
        "HYDRA_FULL_ERROR": "1",
    }


def _simulated(config: RunConfig, paths: RunPaths, interface: str | None) -> dict[str, str]:
    return {
        # No idle workers in advance: each takes seconds of these few cores.
        "RAY_prestart_worker_first_driver": "0",
        # Ray replaces a loopback address by the machine's own and then listens on every interface, unless it is told
        # that this is one machine; the switch is named for the systems where that is the default.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Paged attention in decode. Otherwise vLLM-Ascend concatenates the whole KV cache in every layer and step.
        "VLLM_ASCEND_MLA_PA": "1",
        # gloo, in the place of HCCL. On one machine everything talks over loopback.
        "GLOO_SOCKET_IFNAME": interface or "lo",
        # Threads only where a process asks for them: the cores are shared.
        "OMP_NUM_THREADS": "1",
        # oneDNN keeps compiled products by shape, and shapes change with every batch: at its default of 1024 entries a
        # worker's memory grows for hundreds of steps.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
        "LRU_CACHE_CAPACITY": "256",
        "HF_HOME": str(cache_dir() / "huggingface"),
        "TORCHDYNAMO_DISABLE": "1",
        "NPU_SIM_DEVICES": str(max(8, config.cluster.dies_per_node)),
        "NPU_SIM_HBM": f"{config.simulator.hbm_mib}MiB",
        "NPU_SIM_OUTSIDE": f"{config.simulator.outside_mib}MiB" if config.simulator.outside_mib else "0",
        "NPU_SIM_SLOTS": str(paths.slots),
    }


def _npu(config: RunConfig, paths: RunPaths, interface: str | None) -> dict[str, str]:
    cluster, rollout = config.cluster, config.rollout
    values = {
        # torch_npu's allocator. Fragmentation between rollout and training is what runs out of memory; with vLLM's
        # sleep mode this would be an error, but our rollout does without that.
        "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
        # torch_npu: operators are prepared on one thread and launched on another.
        "TASK_QUEUE_ENABLE": "2",
        # Megatron-core wants communication launched in the order in which it is written.
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        # HCCL: collectives are unfolded on the dies' vector cores, and buffers (MiB) hold the exchange of tokens
        # between experts.
        "HCCL_OP_EXPANSION_MODE": "AIV",
        "HCCL_BUFFSIZE": "300",
        "HCCL_CONNECT_TIMEOUT": str(cluster.collective_timeout_s),
        "HCCL_EXEC_TIMEOUT": str(cluster.collective_timeout_s),
        # HCCL would listen on 60000 to 60031, which Linux hands out to anybody.
        "HCCL_IF_BASE_PORT": str(cluster.hccl_base_port),
    }
    if interface:
        # HCCL, gloo and torch's TensorPipe find each other through it.
        values |= dict.fromkeys(("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"), interface)
    if rollout.top_p < 1 or rollout.top_k:
        # vLLM-Ascend: top-k and top-p with the operators of the NPU.
        values["VLLM_ASCEND_ENABLE_TOPK_OPTIMIZE"] = "1"
    return values


def _cuda(config: RunConfig, paths: RunPaths, interface: str | None) -> dict[str, str]:
    names = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
    return {"CUDA_DEVICE_MAX_CONNECTIONS": "1"} | (dict.fromkeys(names, interface) if interface else {})
