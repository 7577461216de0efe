# SPDX-License-Identifier: Apache-2.0
"""Builds the extension torch_npu._sim against the torch that is already installed."""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

# An npu_sim that is installed already must not load while it is replaced.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"


def import_torch() -> None:
    """Import torch; pip's isolated builds hide it, so look where this interpreter keeps its packages."""
    try:
        import torch
    except ModuleNotFoundError:
        for key in ("purelib", "platlib"):
            path = sysconfig.get_paths()[key]
            if path not in sys.path:
                sys.path.append(path)
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError as error:
            raise SystemExit(
                f"npu_sim is built against an installed torch, but {sys.executable} has none ({error}). "
                "Install torch first: pip install torch"
            ) from error


import_torch()
from torch.utils.cpp_extension import BuildExtension, CppExtension  # noqa: E402

here = Path(__file__).parent
setup(
    ext_modules=[
        CppExtension(
            "torch_npu._sim",
            sorted(str(p.relative_to(here)) for p in (here / "csrc").glob("*.cpp")),
            depends=sorted(str(p.relative_to(here)) for p in (here / "csrc").glob("*.h")),
            extra_compile_args=["-O2", "-g0", "-std=c++20", "-Wall", "-Wno-interference-size", "-fvisibility=hidden"],
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
