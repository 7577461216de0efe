# SPDX-License-Identifier: Apache-2.0
"""The KV cache in NZ layout: prefill writes what graph decode reads, and nothing writes ND blocks over it.

vLLM-Ascend's own attention runs on the simulated NPU, on a cache of several blocks; every write to the cache is noted.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch_npu
from torch import Tensor
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm_ascend.attention import mla_v1
from vllm_ascend.attention.attention_v1 import AscendAttentionState

from recipe.audit.declarations import collect
from recipe.overlay import source, source_patch

ID = "vllm_ascend_patches.attention.mla_v1:AscendMLAImpl"
HIDDEN, HEADS, LATENT, NOPE, ROPE, VALUE = 24, 4, 32, 8, 16, 8
BLOCKS, BLOCK = 8, 16
LONGEST = 40


class Operators:
    """torch_npu, noting writes to the cache, with the mode that the simulator does not have after its documentation."""

    def __init__(self) -> None:
        self.writes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch_npu, name)

    def _npu_reshape_and_cache(self, **arguments: Any) -> None:
        self.writes.append(f"ND {len(arguments['slot_indices'])}")
        torch_npu._npu_reshape_and_cache(**arguments)

    def npu_kv_rmsnorm_rope_cache(
        self, kv: Tensor, gamma: Tensor, cos: Tensor, sin: Tensor, index: Tensor, k: Tensor, ckv: Tensor, **options: Any
    ) -> Any:
        self.writes.append(f"{options['cache_mode']} {len(index)}")
        if options["cache_mode"] == "PA_BLK_NZ":
            # One entry for each block of a sequence, the block's first slot; every token is a sequence of its own here.
            index, options["cache_mode"] = index // BLOCK * BLOCK, "PA_NZ"
        return torch_npu.npu_kv_rmsnorm_rope_cache(kv, gamma, cos, sin, index, k, ckv, **options)


class Linear:
    """A projection as vLLM's: returns (output, bias)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight = torch.randn(outputs, inputs, device="npu") / inputs**0.5
        self.quant_method = UnquantizedLinearMethod()

    def __call__(self, x: Tensor) -> tuple[Tensor, None]:
        return x @ self.weight.T, None


class Norm:
    def __init__(self) -> None:
        self.weight, self.variance_epsilon = 1 + 0.1 * torch.randn(LATENT, device="npu"), 1e-6

    def __call__(self, x: Tensor) -> Tensor:
        return torch_npu.npu_rms_norm(x, self.weight, self.variance_epsilon)[0]


ANGLE = torch.arange(LONGEST)[:, None] * 10000.0 ** (-torch.arange(0, ROPE, 2) / ROPE)
COS, SIN = (torch.cat((part, part), -1)[:, None, None, :] for part in (ANGLE.cos(), ANGLE.sin()))


def rotate(positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """The model's rotary embedding: both [tokens, heads, rope]."""
    cos, sin = (table[positions.cpu()].npu() for table in (COS, SIN))
    return tuple(torch_npu.npu_interleave_rope(part[:, :, None], cos, sin)[:, :, 0] for part in (query, key))


@dataclass
class Layer:
    """One attention layer with its cache; `tokens[i]` are the hidden states of request i, blocks 4 i ... are its."""

    implementation: Any
    operators: Operators
    module: ModuleType
    tokens: list[Tensor]
    cache: tuple[Tensor, Tensor] = field(
        default_factory=lambda: (
            torch.zeros(BLOCKS, BLOCK, 1, LATENT, device="npu"),
            torch.zeros(BLOCKS, BLOCK, 1, ROPE, device="npu"),
        )
    )

    def forward(self, state: AscendAttentionState, decodes: dict[int, int], prefills: dict[int, int]) -> Tensor:
        """One step: `decodes` are request -> its position, `prefills` request -> how many tokens from the first.

        Returns the output rows, decodes first.
        """
        pieces = [(one, [at]) for one, at in decodes.items()]
        pieces += [(one, list(range(count))) for one, count in prefills.items()]
        hidden = torch.cat([self.tokens[one][places] for one, places in pieces])
        places = [torch.tensor(places) for _, places in pieces]
        slots = torch.cat([4 * BLOCK * one + at for (one, _), at in zip(pieces, places, strict=True)])
        output = torch.zeros(len(hidden), HIDDEN, device="npu")
        metadata = self.module.AscendMLAMetadata(
            num_actual_tokens=len(hidden),
            slot_mapping=slots.int().npu(),
            query_start_loc=None,
            seq_lens=None,
            block_tables=None,
            num_decodes=len(decodes),
            num_decode_tokens=len(decodes),
            num_prefills=len(prefills),
            attn_state=state,
            decode=self._decode(decodes) if decodes else None,
            prefill=self._prefill(torch.cat(places[len(decodes) :]), list(prefills.values())) if prefills else None,
        )
        result: Tensor = self.implementation.forward(None, hidden, hidden, None, self.cache, metadata, output)
        return result.cpu()

    def _decode(self, decodes: dict[int, int]) -> Any:
        at, lengths = torch.tensor(list(decodes.values())), [place + 1 for place in decodes.values()]
        pages = [[4 * one + page for page in range(4)] for one in decodes]
        return self.module.AscendMLADecodeMetadata(
            input_positions=at.npu(),
            block_table=torch.tensor(pages, dtype=torch.int32).npu(),
            seq_lens=torch.tensor(lengths, dtype=torch.int32),
            max_seq_lens=max(lengths),
            seq_lens_list=lengths,
            cos=COS[at].npu(),
            sin=SIN[at].npu(),
        )

    def _prefill(self, at: Tensor, lengths: list[int]) -> Any:
        return self.module.AscendMLAPrefillMetadata(
            attn_mask=torch.ones(512, 512, dtype=torch.bool).triu(1).npu(),
            query_lens=lengths,
            seq_lens=lengths,
            context_lens=torch.zeros(len(lengths), dtype=torch.int32),
            input_positions=at.npu(),
            query_start_loc=None,
            block_table=None,
            max_query_len=max(lengths),
            max_seq_lens=max(lengths),
            cos=COS[at].npu(),
            sin=SIN[at].npu(),
        )


def loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mla_v1_{file.parents[2].name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The upstream file as pinned, and as a sync leaves it with the source patches that are there."""
    declared = [patch for patch in collect() if patch.kind == "source"]
    patches = [patch for patch in declared if patch.target.module == "vllm_ascend.attention.mla_v1"]
    files = {}
    for name in ("pinned", "synced"):
        root = tmp_path_factory.mktemp("sources") / name
        files[name] = root / "vllm_ascend" / "attention" / "mla_v1.py"
        files[name].parent.mkdir(parents=True)
        shutil.copy(mla_v1.__file__, files[name])
        for one in patches:
            is_in = source.find(files[name], one.target.qualname).fingerprint in one.patched
            if is_in == (name == "pinned"):
                command = ["git", "apply", *(["--reverse"] if is_in else []), "-"]
                subprocess.run(command, input=source_patch.diff(one.file), cwd=root, text=True, check=True)
    return files


@pytest.fixture
def layer(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Layer]:
    """Builds a layer in graph mode, with equal weights and tokens every time."""

    def build(name: str, kv_nz: bool) -> Layer:
        torch.manual_seed(1)
        module, operators = loaded(sources[name]), Operators()
        graph = SimpleNamespace(torchair_graph_config=SimpleNamespace(enabled=True, enable_kv_nz=kv_nz))
        monkeypatch.setattr(module, "get_ascend_config", lambda: graph)
        monkeypatch.setattr(module, "get_current_vllm_config", lambda: SimpleNamespace(speculative_config=None))
        monkeypatch.setattr(module, "torch_npu", operators)
        monkeypatch.setattr(module.envs, "VLLM_ASCEND_MLA_PA", False, raising=False)
        implementation = module.AscendMLAImpl(
            HEADS, LATENT + ROPE, (NOPE + ROPE) ** -0.5, 1, None, None, "auto", None, None, "decoder", None,
            q_lora_rank=None,
            kv_lora_rank=LATENT,
            qk_nope_head_dim=NOPE,
            qk_rope_head_dim=ROPE,
            qk_head_dim=NOPE + ROPE,
            v_head_dim=VALUE,
            rotary_emb=rotate,
            q_proj=Linear(HIDDEN, HEADS * (NOPE + ROPE)),
            kv_b_proj=Linear(LATENT, HEADS * (NOPE + VALUE)),
            o_proj=Linear(HEADS * VALUE, HIDDEN),
            kv_a_proj_with_mqa=Linear(HIDDEN, LATENT + ROPE),
            kv_a_layernorm=Norm(),
        )  # fmt: skip
        implementation.process_weights_after_loading(torch.float32)
        tokens = [torch.randn(LONGEST, HIDDEN, device="npu") for _ in range(2)]
        return Layer(implementation, operators, module, tokens)

    return build


PREFILL, DECODE, MIXED = (
    AscendAttentionState.PrefillNoCache,
    AscendAttentionState.DecodeOnly,
    AscendAttentionState.ChunkedPrefill,
)


def at_once(layer: Layer, request: int, tokens: int) -> Tensor:
    """The last row of prefilling all `tokens` in one piece, which reads no cache."""
    return layer.forward(PREFILL, {}, {request: tokens})[-1]


def decoded_after_prefill(layer: Layer) -> Tensor:
    layer.forward(PREFILL, {}, {0: 21, 1: 33})
    first = layer.forward(DECODE, {0: 21, 1: 33}, {})
    return torch.cat((first, layer.forward(DECODE, {0: 22, 1: 34}, {})))


@pytest.mark.proves(ID)
def test_nz_decode_attends_to_what_prefill_wrote(layer: Callable[..., Layer]) -> None:
    nz = layer("synced", kv_nz=True)
    found = decoded_after_prefill(nz)
    assert nz.operators.writes == ["PA_NZ 54", "PA_NZ 2", "PA_NZ 2"]
    fresh = layer("synced", kv_nz=False)
    expected = torch.stack([at_once(fresh, *which) for which in ((0, 22), (1, 34), (0, 23), (1, 35))])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_pinned_source_needs_it(layer: Callable[..., Layer]) -> None:
    nz = layer("pinned", kv_nz=True)
    found = decoded_after_prefill(nz)
    assert nz.operators.writes == ["PA_BLK_NZ 54", "ND 54", "PA_NZ 2", "PA_NZ 2"]
    assert (found - decoded_after_prefill(layer("pinned", kv_nz=False))).abs().max() > 0.1


def test_nd_decode_is_as_before(layer: Callable[..., Layer]) -> None:
    pinned, synced = layer("pinned", kv_nz=False), layer("synced", kv_nz=False)
    assert torch.equal(decoded_after_prefill(pinned), decoded_after_prefill(synced))
    assert pinned.operators.writes == synced.operators.writes == ["PA 54", "ND 54", "PA 2", "PA 2"]


def test_a_mixed_nd_batch_still_writes_the_tokens_it_decodes(layer: Callable[..., Layer]) -> None:
    nd = layer("synced", kv_nz=False)
    nd.forward(PREFILL, {}, {0: 21})
    nd.operators.writes.clear()
    nd.forward(MIXED, {0: 21}, {1: 33})
    assert nd.operators.writes == ["PA 33", "ND 1"]
    found = nd.forward(DECODE, {0: 22, 1: 33}, {})
    fresh = layer("synced", kv_nz=False)
    expected = torch.stack([at_once(fresh, 0, 23), at_once(fresh, 1, 34)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
