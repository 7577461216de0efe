# SPDX-License-Identifier: Apache-2.0
"""The steps of ``import torch_npu``, in the order ``torch_npu/__init__.py`` takes them."""

import atexit
import contextlib
import glob
import importlib.metadata
import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

logger = logging.getLogger("torch_npu")


def refuse_real_torch_npu() -> None:
    """Raise ImportError where a distribution named torch_npu is installed: two of them cannot share one device name."""
    try:
        installed = importlib.metadata.distribution("torch_npu")
    except importlib.metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"the simulated NPU (npu-sim) was imported, but the real torch_npu {installed.version} is installed as well; "
        "keep one: `pip uninstall npu-sim` on a machine with NPUs, `pip uninstall torch_npu` on one without"
    )


def stand_in_for_cann() -> None:
    """Set the directories that MindSpeed's operator builders look for at import; nothing is read from them."""
    for name in ("ASCEND_HOME_PATH", "ATB_HOME_PATH"):
        os.environ.setdefault(name, str(Path(__file__).parent))


def check_build() -> None:
    """Raise ImportError unless the extension was built for the torch that runs (a C++ extension has no stable ABI)."""
    import torch

    try:
        from torch_npu import _sim
    except ImportError as error:
        raise ImportError(
            f"the extension torch_npu._sim does not load with torch {torch.__version__} ({error}); "
            "reinstall it: pip install --no-build-isolation --force-reinstall --no-deps ./npu_sim"
        ) from error
    running = torch.__version__.split("+")[0]
    if _sim.BUILT_FOR_TORCH.split("+")[0] != running:
        raise ImportError(
            f"torch_npu._sim was built for torch {_sim.BUILT_FOR_TORCH}, but torch {torch.__version__} is running; "
            "reinstall it: pip install --no-build-isolation --force-reinstall --no-deps ./npu_sim"
        )


def register_device_module(npu: ModuleType) -> None:
    """Make ``torch.npu`` (and its submodules) this package's, and give tensors, modules and storages ``.npu()``."""
    import torch
    from torch_npu._version import CANN_VERSION

    torch._register_device_module("npu", npu)
    sys.modules["torch.npu"] = npu
    for name, module in list(sys.modules.items()):
        if name.startswith("torch_npu.npu."):
            sys.modules["torch." + name.removeprefix("torch_npu.")] = module
    torch.utils.generate_methods_for_privateuse1_backend(
        for_tensor=True, for_module=True, for_packed_sequence=True, for_storage=True
    )
    torch.version.cann = CANN_VERSION  # vLLM-Ascend asks for it


def load_operators() -> ModuleType:
    """The package ``torch_npu.ops``; ImportError with a reason when it is broken or missing."""
    try:
        from torch_npu import ops
    except ImportError as error:
        raise ImportError(f"torch_npu.ops (the simulated operators) cannot be imported: {error}") from error
    return ops


def settle_at_exit() -> None:
    """Let autograd's threads come up before the interpreter ends.

    torch starts one thread per device at the first backward, and each takes the GIL once before it waits for work. One
    that has not come so far when the interpreter ends takes the process down ("terminate called without an active
    exception"); with eight devices and two cores a short process meets that often.
    """
    import torch

    def started() -> int:
        count = 0
        for task in glob.glob("/proc/self/task/*/comm"):
            with contextlib.suppress(OSError):  # a thread that ended meanwhile
                count += Path(task).read_text().startswith("pt_autograd_")
        return count

    def wait() -> None:
        if len(os.listdir("/proc/self/task")) <= threading.active_count():
            return  # no threads but Python's own
        deadline = time.monotonic() + 5
        time.sleep(0.005)
        while 0 < started() < torch.npu.device_count() and time.monotonic() < deadline:
            time.sleep(0.005)

    if os.path.isdir("/proc/self/task"):
        atexit.register(wait)


def become_strict() -> None:
    """Switch on what ``NPU_SIM_STRICT`` asks for."""
    from torch_npu.limits.strictness import level_of_environment, set_level

    set_level(level_of_environment())


def announce() -> None:
    """Print one line that says the device is simulated and how strict it is, once per process."""
    from torch_npu.limits import Level, level

    said = {
        Level.OFF: "sizes and dtypes that no NPU takes are computed too",
        Level.STRICT: "strict: what an NPU does not take is refused",
        Level.FLOAT32: "strict, but for float32 in fused operators of half types",
    }[level()]
    logger.warning("simulated NPU (npu-sim), process %d: results say nothing about speed; %s", os.getpid(), said)
