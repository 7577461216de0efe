# SPDX-License-Identifier: Apache-2.0
"""The work of a step on a die: by hand, and how it follows from the layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.models.published import KNOWN
from recipe.plan.counts import counts_of
from recipe.plan.published import R1_ASCEND
from recipe.plan.subject import subject
from recipe.plan.traffic import Lengths, lengths, traffic
from recipe.plan.work import bubble, exchanged_in_node, packed, reduced_in_node, setting_of, work, work_of
from recipe.runfile.config import load

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
RUN = subject(load(CONFIGS / "a3_256die.toml"))
MEAN = Lengths(100, 400, 2048)
DEEPSEEK_V3, QWEN3_235B = counts_of(KNOWN["deepseek_v3_671b"]), counts_of(KNOWN["qwen3_235b_a22b"])


def test_a_run_file_is_laid_out_as_the_published_run_that_it_is_modelled_on() -> None:
    assert setting_of(RUN) == R1_ASCEND.setting


def test_a_pipeline_waits_less_with_more_micro_batches() -> None:
    assert bubble(1, 8) == 8
    assert bubble(8, 1) == 1
    assert bubble(256, 8) == pytest.approx(1.027, abs=1e-3)
    assert (packed(10, 5), packed(11, 5)) == (2, 3)


def test_every_token_of_an_answer_reads_all_that_stand_before_it() -> None:
    done = work(DEEPSEEK_V3, R1_ASCEND.setting, MEAN, 16)
    read = sum(100 + before for before in range(400))
    assert done.cache_bytes == pytest.approx(64 * read * 70_272, rel=0.002)


def test_the_dies_of_an_engine_share_key_value_heads_but_not_a_latent_cache() -> None:
    for counts, share in ((DEEPSEEK_V3, 1), (QWEN3_235B, 4)):
        one, eight = (
            work(counts, dataclasses.replace(R1_ASCEND.setting, engine_tensor=tensor), MEAN, 16) for tensor in (1, 8)
        )
        assert one.cache_bytes / eight.cache_bytes == share


def test_what_generation_sends_is_what_the_traffic_says() -> None:
    mean = lengths(RUN, 100, 400)
    sent = traffic(RUN, mean)
    told = sent["expert all-to-all, rollout"] + sent["tensor all-reduce, rollout"]
    assert work_of(RUN, mean).sent_bytes == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize(
    ("ranks", "node_dies", "exchanged", "reduced"),
    [
        (1, 8, 1, 1),
        (8, 8, 1, 1),
        (4, 16, 1, 1),
        (16, 8, 7 / 15, 14 / 15),  # of 15 others, 7 are here; 2 nodes exchange an eighth: 7/8 and 1/2 * 1/8
        (32, 8, 7 / 31, 28 / 31),
        (256, 16, 15 / 255, 240 / 255),
        (8, 1, 0, 0),
    ],
)
def test_what_stays_in_a_node(ranks: int, node_dies: int, exchanged: float, reduced: float) -> None:
    assert exchanged_in_node(ranks, node_dies) == pytest.approx(exchanged)
    assert reduced_in_node(ranks, node_dies) == pytest.approx(reduced)


@given(st.integers(1, 512), st.integers(1, 16))
def test_larger_nodes_keep_more(ranks: int, node_dies: int) -> None:
    for share in (exchanged_in_node, reduced_in_node):
        assert 0 <= share(ranks, node_dies) <= share(ranks, node_dies + 1) <= 1
    assert exchanged_in_node(ranks, node_dies) <= reduced_in_node(ranks, node_dies) + 1e-12


def test_an_engine_within_a_node_sends_nothing_to_others() -> None:
    setting = dataclasses.replace(R1_ASCEND.setting, engine_tensor=8, exchanges_experts=False)
    here, apart = (work(DEEPSEEK_V3, setting, MEAN, node_dies) for node_dies in (8, 4))
    assert here.network_bytes == 0 and here.node_bytes > 0
    assert apart.network_bytes > 0 and apart.sent_bytes == pytest.approx(here.sent_bytes)


def test_experts_that_are_split_like_dense_layers_are_sent_nothing() -> None:
    setting = dataclasses.replace(R1_ASCEND.setting, engine_tensor=1)
    assert work(DEEPSEEK_V3, setting, MEAN, 16).sent_bytes > 0
    assert work(DEEPSEEK_V3, dataclasses.replace(setting, exchanges_experts=False), MEAN, 16).sent_bytes == 0


def test_a_recomputed_layer_is_passed_four_times_and_another_three() -> None:
    flops = [
        work(DEEPSEEK_V3, dataclasses.replace(R1_ASCEND.setting, recomputed=share), MEAN, 16).update_flops
        for share in (0.0, 1.0)
    ]
    assert flops[1] / flops[0] == pytest.approx(4 / 3)
