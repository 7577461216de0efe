# SPDX-License-Identifier: Apache-2.0
"""Time of the simulated operators at the shapes of the tiny model's rollout, as ratios to one matrix product of the
same machine.

A decode step of one die is 128 sequences of about 100 tokens, 4 layers (first dense), 4 heads, latent 32, rope 16,
8 experts top-2 (4 experts per die with EP 2). Ratios, unlike times, can be compared between machines:
``ratio = time / time of a 256x256 float32 matrix product on the CPU``.

    OMP_NUM_THREADS=1 python benchmarks/npu_sim_ops.py [--sequences 128] [--context 100] [--repeats 50]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch_npu

HIDDEN, HEADS, LATENT, ROPE, NOPE, VALUE, EXPERTS, TOP, MOE_HIDDEN, PAGE, BLOCKS = (
    128,
    4,
    32,
    16,
    16,
    16,
    8,
    2,
    64,
    128,
    2000,
)
LAYERS, MOE_LAYERS = 4, 3


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median CPU time of one call after warming up (wall time would count the neighbours' work)."""
    for _ in range(5):
        function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def decode_operators(batch: int, context: int, dtype: torch.dtype) -> dict[str, tuple[int, Callable[[], object]]]:
    """Operator → (calls per decode step, one call)."""
    lengths = torch.randint(max(1, context - 20), context + 1, (batch,), dtype=torch.int32)
    pages = -(-context // PAGE)
    table = torch.randperm(BLOCKS)[: batch * pages].view(batch, pages).int().npu()
    ckv, kpe = (torch.zeros(BLOCKS, PAGE, 1, d, dtype=dtype, device="npu") for d in (LATENT, ROPE))
    latent_cache = torch.cat((ckv, kpe), -1)
    query = torch.randn(batch, HEADS, LATENT + ROPE, dtype=dtype, device="npu")
    out = torch.empty(batch, HEADS, LATENT, dtype=dtype, device="npu")
    hidden, gamma = torch.randn(batch, HIDDEN, dtype=dtype, device="npu"), torch.ones(HIDDEN, dtype=dtype, device="npu")
    positions = torch.randint(0, context, (batch,), device="npu")
    rope_cache = torch.randn(512, ROPE, dtype=dtype, device="npu")
    q_rope = torch.randn(batch, HEADS * ROPE, dtype=dtype, device="npu")
    k_rope = torch.randn(batch, ROPE, dtype=dtype, device="npu")
    slots = torch.randperm(BLOCKS * PAGE)[:batch].int().npu()
    latent_row, rope_row = torch.randn(batch, 1, LATENT, dtype=dtype, device="npu"), k_rope.view(batch, 1, ROPE)
    kv = torch.randn(batch, 1, 1, LATENT + ROPE, dtype=dtype, device="npu")
    cos = torch.randn(batch, 1, 1, ROPE, dtype=dtype, device="npu")
    experts = torch.randint(0, EXPERTS, (batch, TOP), dtype=torch.int32).npu()
    row_idx = torch.arange(batch * TOP, dtype=torch.int32).view(TOP, batch).t().contiguous().npu()
    rows, place, order = torch_npu.npu_moe_init_routing(hidden, row_idx, experts, batch)
    ends = torch_npu.npu_moe_compute_expert_tokens(order, EXPERTS).long()
    w13 = torch.randn(EXPERTS, 2 * MOE_HIDDEN, HIDDEN, dtype=dtype, device="npu").transpose(1, 2)
    w2 = torch.randn(EXPERTS, HIDDEN, MOE_HIDDEN, dtype=dtype, device="npu").transpose(1, 2)
    gate_up = torch.randn(batch * TOP, 2 * MOE_HIDDEN, dtype=dtype, device="npu")
    down = torch.randn(batch * TOP, MOE_HIDDEN, dtype=dtype, device="npu")
    scales = torch.rand(batch, TOP, dtype=dtype, device="npu")
    logits256 = torch.randn(batch, 256, dtype=dtype, device="npu")
    vocabulary = torch.randn(batch, 1024, device="npu")
    p, k = torch.full((batch,), 0.9, device="npu"), torch.full((batch,), 50, dtype=torch.int32, device="npu")
    fused_key, fused_rope = ckv.view(BLOCKS, 1, PAGE, LATENT), kpe.view(BLOCKS, 1, PAGE, ROPE)
    listed = lengths.tolist()
    gmm = {"split_item": 2, "group_list_type": 0, "group_type": 0, "group_list": ends}
    n = torch_npu
    return {
        "npu_rms_norm": (2 * LAYERS + 1, lambda: n.npu_rms_norm(hidden, gamma, 1e-6)),
        "npu_add_rms_norm": (2 * LAYERS, lambda: n.npu_add_rms_norm(hidden, hidden, gamma, 1e-6)),
        "_npu_rotary_embedding": (
            LAYERS,
            lambda: n._npu_rotary_embedding(positions, q_rope, k_rope, ROPE, rope_cache, True),
        ),
        "_npu_reshape_and_cache": (LAYERS, lambda: n._npu_reshape_and_cache(latent_row, rope_row, ckv, kpe, slots)),
        "_npu_paged_attention_mla": (
            LAYERS,
            lambda: n._npu_paged_attention_mla(query, latent_cache, 1, HEADS, 0.2, table, lengths, LATENT, out),
        ),
        "atb.npu_multi_head_latent_attention": (
            LAYERS,
            lambda: n.atb.npu_multi_head_latent_attention(
                query[..., :LATENT], query[..., LATENT:], ckv, kpe, table, lengths, HEADS, 0.2, 1
            ),
        ),
        "npu_fused_infer_attention_score": (
            LAYERS,
            lambda: n.npu_fused_infer_attention_score(
                query[:, :, None, :LATENT],
                fused_key,
                fused_key,
                query_rope=query[:, :, None, LATENT:],
                key_rope=fused_rope,
                num_heads=HEADS,
                num_key_value_heads=1,
                input_layout="BNSD",
                scale=0.2,
                block_table=table,
                block_size=PAGE,
                actual_seq_lengths_kv=listed,
            ),
        ),
        "npu_kv_rmsnorm_rope_cache": (
            LAYERS,
            lambda: n.npu_kv_rmsnorm_rope_cache(kv, gamma[:LATENT], cos, cos, slots.long(), kpe, ckv, cache_mode="PA"),
        ),
        "npu_interleave_rope": (LAYERS, lambda: n.npu_interleave_rope(q_rope.view(batch, HEADS, 1, ROPE), cos, cos)),
        "npu_swiglu": (1 + 2 * MOE_LAYERS, lambda: n.npu_swiglu(gate_up)),
        "npu_moe_init_routing": (MOE_LAYERS, lambda: n.npu_moe_init_routing(hidden, row_idx, experts, batch)),
        "npu_moe_compute_expert_tokens": (MOE_LAYERS, lambda: n.npu_moe_compute_expert_tokens(order, EXPERTS)),
        "npu_grouped_matmul (up)": (MOE_LAYERS, lambda: n.npu_grouped_matmul([rows], [w13], **gmm)),
        "npu_grouped_matmul (down)": (MOE_LAYERS, lambda: n.npu_grouped_matmul([down], [w2], **gmm)),
        "npu_moe_finalize_routing": (
            MOE_LAYERS,
            lambda: n.npu_moe_finalize_routing(rows, None, None, None, scales, place, experts),
        ),
        "npu_moe_gating_top_k (256)": (
            0,
            lambda: n.npu_moe_gating_top_k(logits256, 8, k_group=4, group_count=8, group_select_mode=1, norm_type=1),
        ),
        "npu_top_k_top_p": (0, lambda: n.npu_top_k_top_p(vocabulary, p, k)),
    }


EAGER = (
    "npu_rms_norm",
    "npu_add_rms_norm",
    "_npu_rotary_embedding",
    "_npu_reshape_and_cache",
    "_npu_paged_attention_mla",
    "npu_swiglu",
    "npu_moe_init_routing",
    "npu_moe_compute_expert_tokens",
    "npu_grouped_matmul (up)",
    "npu_grouped_matmul (down)",
    "npu_moe_finalize_routing",
)
"""Operators of an eager decode step (graph mode swaps the attention and cache ones)."""


def prefill(batch: int, prompt: int, dtype: torch.dtype) -> Callable[[], object]:
    """One layer's ring attention over a whole batch of prompts, with lengths that differ by a third."""
    lengths = torch.randint(max(1, prompt * 2 // 3), prompt + 1, (batch,), dtype=torch.int32)
    total = int(lengths.sum())
    q, k = (torch.randn(total, HEADS, NOPE + ROPE, dtype=dtype, device="npu") for _ in range(2))
    v = torch.randn(total, HEADS, VALUE, dtype=dtype, device="npu")
    out, lse = torch.empty_like(v), torch.empty(HEADS, total, device="npu")
    mask = torch.ones(512, 512, dtype=dtype).triu(1).npu()
    return lambda: torch_npu.atb.npu_ring_mla(
        q_nope=q[..., :NOPE],
        q_rope=q[..., NOPE:],
        k_nope=k[..., :NOPE],
        k_rope=k[..., NOPE:],
        value=v,
        mask=mask,
        seqlen=lengths,
        head_num=HEADS,
        kv_head_num=HEADS,
        pre_out=None,
        prev_lse=None,
        qk_scale=0.2,
        kernel_type="kernel_type_high_precision",
        mask_type="mask_type_triu",
        input_layout="type_bsnd",
        calc_type="calc_type_first_ring",
        output=out,
        softmax_lse=lse,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=128, help="sequences that decode together")
    parser.add_argument("--context", type=int, default=100, help="longest context in tokens")
    parser.add_argument("--repeats", type=int, default=50, help="timed calls per operator")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    matrix = torch.randn(256, 256)
    unit = seconds(lambda: matrix @ matrix, options.repeats)
    print(f"unit: 256x256 float32 product on the CPU, {unit * 1e6:.0f} us")
    print(f"{options.sequences} sequences, context {options.context}, {options.dtype}")
    print(f"{'operator':40s} {'us':>8s} {'ratio':>8s} {'calls/step':>10s} {'ms/step':>8s}")
    step = 0.0
    with torch.inference_mode():
        for name, (calls, call) in decode_operators(options.sequences, options.context, dtype).items():
            call_s = seconds(call, options.repeats)
            step += call_s * calls if name in EAGER else 0.0
            print(f"{name:40s} {call_s * 1e6:8.0f} {call_s / unit:8.1f} {calls:10d} {call_s * calls * 1e3:8.2f}")
        call_s = seconds(prefill(options.sequences, 60, dtype), max(5, options.repeats // 10))
        each = f"{call_s * 1e6:8.0f} {call_s / unit:8.1f} {LAYERS:10d} {call_s * LAYERS * 1e3:8.2f}"
        print(f"{'atb.npu_ring_mla (prefill, 60 tokens)':40s} {each}")
    print(f"eager decode step, all operators of {LAYERS} layers: {step * 1e3:.1f} ms, ratio {step / unit:.0f}")


if __name__ == "__main__":
    main()
