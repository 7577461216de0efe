# SPDX-License-Identifier: Apache-2.0
"""Eager torchair and acl: models come back as they are, and whatever would need a graph is refused by name."""

import importlib

import acl
import pytest
import torch
import torch_npu
import torchair
from torchair import configs


def test_compile_with_our_backend_returns_the_model():
    model = torch.nn.Linear(2, 2)
    backend = torchair.get_npu_backend(compiler_config=torchair.CompilerConfig())
    assert torch.compile(model, dynamic=True, fullgraph=True, backend=backend) is model

    @torch.compile(backend=backend)
    def double(x):
        return x + x if float(x.sum()) > 0 else x  # data-dependent: a traced graph would fail here

    assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0))


def test_compile_with_another_backend_is_torchs_own(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: seen.append((model, options)) or "compiled")
    torchair._backend.install()
    model = torch.nn.Linear(2, 2)
    assert torch.compile(model, backend="eager", dynamic=True) == "compiled"
    assert torch.compile(model, backend=torchair.get_npu_backend()) is model
    assert seen == [(model, {"backend": "eager", "dynamic": True})]


def test_compile_is_wrapped_once():
    before = torch.compile
    torchair._backend.install()
    assert torch.compile is before


def test_vllm_ascends_configuration_is_accepted_and_typing_errors_are_not():
    config = torchair.CompilerConfig()
    config.experimental_config.frozen_parameter = True
    config.experimental_config.tiling_schedule_optimize = True
    config.experimental_config.enable_view_optimize = False
    config.mode = "max-autotune"
    assert config.experimental_config.as_dict()["enable_view_optimize"] is False
    with pytest.raises(AttributeError, match="experimental_config has no option 'frozen_parameters'"):
        config.experimental_config.frozen_parameters = True
    with pytest.raises(TypeError, match="expected CompilerConfig"):
        torchair.get_npu_backend(compiler_config={"mode": "x"})
    with pytest.raises(NotImplementedError, match="custom_decompositions"):
        torchair.get_npu_backend(custom_decompositions={1: 2})


def test_cache_compile_returns_the_function(tmp_path):
    def forward(x):
        return x

    config = torchair.CompilerConfig()
    assert (
        torchair.inference.cache_compile(
            forward, config=config, dynamic=True, fullgraph=True, cache_dir=str(tmp_path), ge_cache=False
        )
        is forward
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotImplementedError, match="custom_option"):
        torchair.inference.cache_compile(forward, custom_option=1)
    with pytest.raises(TypeError, match="expected CompilerConfig"):
        torchair.inference.cache_compile(forward, config=3)


def test_scopes_run_their_block():
    x = torch.ones(1)
    with (
        torchair.scope.npu_stream_switch("mla_secondary", 0),
        torchair.ops.NpuStreamSwitch("moe_secondary"),
        torchair.scope.super_kernel("a", "b"),
    ):
        assert torchair.scope.npu_wait_tensor(x, x) is x
    with pytest.raises(TypeError, match="stream_tag"):
        torchair.scope.npu_stream_switch(3)
    with pytest.raises(TypeError, match="scope"):
        torchair.scope.super_kernel(3)
    assert torchair.patch_for_hcom() is None


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("torchair", ["ge", "register_fx_node_ge_converter"]),
        ("torchair.ge", ["Tensor", "TensorSpec", "DataType"]),
        ("torchair.ge_concrete_graph.ge_apis", ["Fill"]),
        ("torchair.ge_concrete_graph.fx2ge_converter", ["register_fx_node_ge_converter", "declare_supported"]),
        (
            "torchair.ge_concrete_graph.ge_graph",
            [
                "Tensor",
                "TensorSpec",
                "DataType",
                "get_default_ge_graph",
                "next_unique_name",
                "compat_as_bytes",
                "get_invalid_desc",
            ],
        ),
        ("torchair._contrib.custom_torch_ops", []),
        ("torchair.llm_datadist", ["create_npu_tensors"]),
    ],
)
def test_names_that_upstreams_import(module, names):
    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in names)


def test_graph_building_is_refused_by_name():
    from torchair.ge_concrete_graph import ge_apis, ge_graph

    for call, name in (
        (torchair.ge.custom_op, "custom_op"),
        (torchair.ge.Const, "Const"),
        (ge_apis.Fill, "Fill"),
        (ge_graph.next_unique_name, "next_unique_name"),
        (torchair.ge.attr.Int, "attr.Int"),
        (torchair.llm_datadist.create_npu_tensors, "create_npu_tensors"),
    ):
        with pytest.raises(NotImplementedError, match=name):
            call(1)
    assert torchair.register_fx_node_ge_converter("op")(len) is len
    assert ge_graph.DataType.DT_BF16 == 27 and isinstance(configs.CompilerConfig(), configs.OptionGroup)


def test_acl_reports_the_chip_and_its_memory():
    assert "910B" not in acl.get_soc_name()  # MindSpeed asks just this
    free, total, code = acl.rt.get_mem_info(1)
    assert (free, total) == tuple(torch_npu.npu.mem_get_info()) and code == 0
    with pytest.raises(NotImplementedError, match="attr=0"):
        acl.rt.get_mem_info(0)
    with pytest.raises(NotImplementedError, match=r"acl.rt.memcpy is not simulated"):
        acl.rt.memcpy(0, 1)
    for owner, name in ((acl, "acl.mdl"), (acl.rt, "acl.rt.malloc_host")):
        with pytest.raises(AttributeError, match=f"{name} is not simulated"):
            getattr(owner, name.split(".")[-1])
