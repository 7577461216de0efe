# SPDX-License-Identifier: Apache-2.0
"""Autograd, mixed precision and random numbers on npu."""

import copy

import pytest
import torch
import torch.nn.functional as F


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Embedding(11, 8),
        torch.nn.Linear(8, 16),
        torch.nn.LayerNorm(16),
        torch.nn.GELU(),
        torch.nn.Linear(16, 11),
    )


def losses(network: torch.nn.Module, device: str, **optimizer: bool) -> list[float]:
    network = copy.deepcopy(network).to(device)
    steps = torch.optim.AdamW(network.parameters(), lr=1e-2, **optimizer)
    tokens = torch.arange(22, device=device).view(2, 11) % 11
    result = []
    for _ in range(4):
        loss = F.cross_entropy(network(tokens).flatten(0, 1), (tokens * 3 % 11).flatten())
        steps.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        steps.step()
        result.append(loss.item())
    return result


@pytest.mark.parametrize("optimizer", [{}, {"foreach": True}, {"fused": True}])
def test_training_on_npu_equals_training_on_cpu(optimizer):
    network = small_network()
    assert losses(network, "npu", **optimizer) == pytest.approx(losses(network, "cpu"), abs=1e-6)
    assert losses(network, "npu:3") == pytest.approx(losses(network, "cpu"), abs=1e-6)


def test_gradients_cross_devices_through_copies():
    x = torch.ones(3, device="npu:1", requires_grad=True)
    y = (x.to("npu:2") * 2).cpu().sum()
    y.backward()
    assert x.grad.device == x.device and x.grad.tolist() == [2, 2, 2]


def test_data_moves_between_cpu_and_npu_and_gradients_follow():
    parameter = torch.nn.Parameter(torch.ones(3))
    (parameter * 2).sum().backward()  # the gradient accumulator now remembers the CPU
    for device in ("npu:1", "cpu", "npu:2"):
        parameter.grad = None
        parameter.data = parameter.data.to(device)
        assert parameter.device == torch.device(device)
        (parameter * 3).sum().backward()
        assert parameter.grad.device == torch.device(device) and parameter.grad.tolist() == [3, 3, 3]


def test_data_of_a_view_and_of_a_flat_buffer():
    flat = torch.arange(6.0, device="npu")
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    parameter.data = flat.view(2, 3)
    flat.add_(1)
    assert parameter.tolist() == [[1, 2, 3], [4, 5, 6]]
    parameter.data = torch.empty(0)
    assert parameter.device.type == "cpu"


def test_in_place_changes_through_views_are_seen_by_autograd():
    x = torch.ones(2, 3, device="npu", requires_grad=True)
    y = x * 2
    y[0].mul_(5)
    y.t()[1].add_(1)
    y.sum().backward()
    assert x.grad.tolist() == [[10] * 3, [2] * 3]
    saved = x.exp()
    saved.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.sum().backward()


def test_attention_and_convolution_equal_cpu():
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 2, 4, 7, 8)
    image, filters = torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3)
    grads = []
    for device in ("cpu", "npu"):
        inputs = [t.clone().to(device).requires_grad_() for t in (q, k, v, image, filters)]
        attended = F.scaled_dot_product_attention(*inputs[:3], is_causal=True)
        convolved = F.conv2d(inputs[3], inputs[4], torch.ones(4, device=device), stride=2, padding=1)
        (attended.square().sum() + convolved.square().sum()).backward()
        grads.append([attended.detach().cpu(), convolved.detach().cpu(), *[t.grad.cpu() for t in inputs]])
    for on_cpu, on_npu in zip(*grads, strict=True):
        torch.testing.assert_close(on_npu, on_cpu, atol=1e-4, rtol=1e-5)


def test_autocast_uses_torchs_lists():
    x, w = torch.ones(4, 4, device="npu"), torch.ones(4, 4, device="npu", requires_grad=True)
    with torch.autocast("npu", dtype=torch.bfloat16):
        assert (x @ w).dtype == torch.bfloat16
        assert torch.softmax(x.bfloat16(), -1).dtype == torch.float32
        assert (x + w).dtype == torch.float32
        with torch.autocast("npu", enabled=False):
            assert (x @ w).dtype == torch.float32
    with torch.npu.amp.autocast():
        assert (x @ w).dtype == torch.float16
    assert (x @ w).dtype == torch.float32


def test_grad_scaler_skips_a_step_that_overflowed():
    w = torch.nn.Parameter(torch.ones(2, device="npu"))
    optimizer = torch.optim.SGD([w], lr=1.0)
    scaler = torch.npu.amp.GradScaler(init_scale=4.0)
    for factor, expected in ((float("inf"), 1.0), (0.5, 0.5)):
        optimizer.zero_grad()
        scaler.scale((w * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert w.tolist() == [expected] * 2
    assert scaler.get_scale() == 2.0


def test_each_device_has_its_random_numbers():
    def draw(device: str) -> list:
        ones = torch.ones(50, device=device)
        return [
            torch.randn(5, device=device).tolist(),
            F.dropout(ones, 0.5).tolist(),
            torch.randperm(9, device=device).tolist(),
            torch.multinomial(ones, 3).tolist(),
            ones.bernoulli(0.3).tolist(),
        ]

    torch.manual_seed(3)
    first, other = draw("npu:0"), draw("npu:1")
    assert first == other  # torch.manual_seed seeds every device alike
    assert draw("npu:0") != first
    torch.manual_seed(3)
    state = torch.npu.get_rng_state("npu:0")
    assert state.device.type == "cpu" and state.dtype == torch.uint8
    torch.rand(100)  # the CPU's generator is another one
    assert draw("npu:0") == first
    torch.npu.set_rng_state(state, "npu:0")
    assert draw("npu:0") == first
    with torch.random.fork_rng(devices=[0], device_type="npu"):
        draw("npu:0")
    after = draw("npu:0")
    torch.npu.set_rng_state(state, 0)
    draw("npu:0")
    assert draw("npu:0") == after


def test_generators():
    generator = torch.Generator(device="npu:1").manual_seed(11)
    assert generator.device == torch.device("npu:1")
    drawn = torch.randn(4, device="npu:1", generator=generator)
    assert torch.equal(drawn, torch.randn(4, device="npu:1", generator=generator.manual_seed(11)))
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(4, device="npu:1", generator=torch.Generator())
    assert len(torch.npu.default_generators) == torch.npu.device_count()


def test_dropout_scales_and_its_gradient_uses_the_mask():
    x = torch.ones(1000, device="npu", requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    assert sorted(set(y.tolist())) == pytest.approx([0.0, 4 / 3])
    torch.testing.assert_close(x.grad, y.detach())
    assert F.dropout(x, 0.25, training=False) is x or torch.equal(F.dropout(x, 0.25, training=False), x)
    assert not F.dropout(x, 1.0).any()


def test_streams_and_events():
    stream = torch.npu.Stream()
    assert stream != torch.npu.current_stream() == torch.npu.default_stream()
    with torch.npu.stream(stream):
        assert torch.npu.current_stream() == stream
        event = stream.record_event()
    torch.npu.current_stream().wait_stream(stream)
    torch.npu.current_stream().wait_event(event)
    assert stream.query() and event.query()
    start, end = torch.npu.Event(enable_timing=True), torch.npu.Event(enable_timing=True)
    start.record()
    end.record(stream)
    assert 0 <= start.elapsed_time(end) < 1000
    with pytest.raises(ValueError, match="enable_timing"):
        start.elapsed_time(event)
    with torch.npu.stream(torch.npu.Stream(device="npu:2")):
        assert torch.npu.current_device() == 2
    assert torch.npu.current_device() == 0
    torch.ones(2, device="npu").record_stream(stream)


def test_graphs_are_refused():
    with pytest.raises(NotImplementedError, match="graphs are not simulated"):
        torch.npu.NPUGraph()
