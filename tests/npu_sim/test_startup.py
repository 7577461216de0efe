# SPDX-License-Identifier: Apache-2.0
"""What happens when torch_npu is imported."""

import shutil
from pathlib import Path

import pytest
import torch
import torch_npu

PACKAGE = Path(torch_npu.__file__).parent


def test_importing_torch_brings_npu_and_one_line(run_python):
    done = run_python("import torch; print(torch.ones(2, device='npu').sum().item()); import torch_npu")
    assert done.stdout == "2.0\n", done.stderr
    assert [line for line in done.stderr.splitlines() if line] == [
        line for line in done.stderr.splitlines() if "simulated NPU (npu-sim), process" in line
    ]
    assert done.stderr.count("results say nothing about speed") == 1


def test_importing_torch_npu_first_works_and_its_line_is_a_log_record(run_python):
    code = (
        "import logging; logging.basicConfig(level=logging.ERROR); import torch_npu, torch;"
        "print(torch.npu.device_count())"
    )
    done = run_python(code, ASCEND_RT_VISIBLE_DEVICES=None, NPU_SIM_DEVICES=None)
    assert (done.stdout, done.stderr) == ("8\n", "")


def test_it_refuses_where_a_real_torch_npu_is_installed(run_python, tmp_path):
    information = tmp_path / "torch_npu-2.7.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.7.1\n")
    done = run_python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch_npu", TORCH_DEVICE_BACKEND_AUTOLOAD="0"
    )
    assert done.returncode != 0
    assert "the real torch_npu 2.7.1 is installed as well" in done.stderr


def test_missing_operators_and_a_foreign_torch_are_explained(run_python, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "torch_npu", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "torch_npu" / "ops" / "__init__.py").write_text("import torch_npu.no_such_module\n")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    done = run_python(path + "import torch_npu", TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert "torch_npu.ops (the simulated operators) cannot be imported: No module named" in done.stderr
    code = path + "import torch; torch.__version__ = '1.0.0'; import torch_npu"
    done = run_python(code, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert "was built for torch" in done.stderr and "but torch 1.0.0 is running" in done.stderr


@pytest.mark.parametrize("name", ["npu_no_such_op", "_npu_no_such_op", "npu_dynamic_quant"])
def test_a_missing_fused_operator_raises_with_its_name(name):
    with pytest.raises(AttributeError, match=rf"torch_npu\.{name} is not simulated"):
        getattr(torch_npu, name)
    with pytest.raises(AttributeError, match=r"torch_npu\.atb\.npu_x is not simulated; simulated: .*npu_ring_mla"):
        _ = torch_npu.atb.npu_x


def test_names_the_pinned_upstreams_import():
    from torch_npu._C import _npu_get_soc_version, _NPUTaskGroupHandle
    from torch_npu._C._distributed_c10d import ProcessGroupHCCL
    from torch_npu.npu import _lazy_call, device, mstx  # noqa: F401
    from torch_npu.npu.streams import Event  # noqa: F401
    from torch_npu.op_plugin.atb._atb_ops import _register_atb_extensions
    from torch_npu.utils import register_asd_hook  # noqa: F401
    from torch_npu.utils.collect_env import get_cann_version
    from torch_npu.utils.flops_count import FlopsCounter

    _register_atb_extensions()
    assert _npu_get_soc_version() == torch.npu.get_soc_version()
    assert get_cann_version() == torch.version.cann
    assert ProcessGroupHCCL.Options is not None
    for refused in (FlopsCounter, _NPUTaskGroupHandle, torch_npu.empty_with_swapped_memory):
        with pytest.raises(NotImplementedError, match="not simulated"):
            refused(*([()] if refused is torch_npu.empty_with_swapped_memory else []))


def test_tensor_types():
    x = torch.npu.FloatTensor([1, 2])
    assert x.device.type == "npu" and x.dtype == torch.float32
    assert torch.npu.LongTensor(2, 3).shape == (2, 3)
    assert isinstance(x, torch.npu.FloatTensor) and not isinstance(x.cpu(), torch.npu.FloatTensor)
    assert not isinstance(x, torch.npu.HalfTensor) and x.type() == "torch.npu.FloatTensor"


def test_the_device_module_is_torchs():
    assert torch.get_device_module("npu") is torch_npu.npu is torch.npu
    assert torch.accelerator.current_accelerator() == torch.device("npu")
    assert torch.ones(1).npu(2).device.index == 2 and torch.nn.Linear(1, 1).npu().weight.is_npu
    assert torch.npu.get_device_properties(0).total_memory == torch.npu.mem_get_info()[1]
    assert torch.npu.get_device_capability("npu:0") == (0, 0)


def test_a_process_that_ends_right_after_its_first_backward_ends_well(run_python):
    code = "import torch; torch.ones(2, device='npu:7', requires_grad=True).sum().backward()"
    for _ in range(3):
        done = run_python(code, ASCEND_RT_VISIBLE_DEVICES=None)
        assert done.returncode == 0, done.stderr
