# SPDX-License-Identifier: Apache-2.0
"""Run files: what is refused, and that each refusal is one line that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SIM = re.sub(r"steps = \d+", "steps = 60", (CONFIGS / "sim.toml").read_text(encoding="utf-8"), count=1)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_run_files_load_and_are_short(path: Path) -> None:
    config = load(path)
    assert config.run.name == path.stem
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sum(not line.startswith("#") for line in lines) <= 60


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("steps = 60", "stepz = 60", "[run] unknown key 'stepz'; did you mean 'steps'?"),
        ("[train]", "[trian]", "unknown section 'trian'; did you mean 'train'?"),
        ("steps = 60", 'steps = "60"', "[run] steps is '60' (str); expected a whole number"),
        ("steps = 60", "steps = true", "[run] steps is True (bool); expected a whole number"),
        ("steps = 60", "steps = -1", "[run] steps is -1"),
        ("steps = 60", "", "[run] key 'steps' is missing; it is a whole number"),
        (
            "stage_layers = [4]",
            "stage_layers = []",
            "[actor] stage_layers is [] (list); expected a list of whole numbers",
        ),
        ("stage_layers = [4]", "stage_layers = [4.0]", "[actor] stage_layers is 4.0 (float); expected a whole number"),
        ('kind = "tiny"', 'kind = "huge"', "[model] kind is 'huge'; expected one of tiny, path"),
        ('kind = "tiny"', 'kind = "path"', '[model] kind = "path" needs path'),
        ('verifier = "r1_zero"', 'verifier = "r1"', "[reward] unknown reward 'r1'"),
        ('verifier = "r1_zero"', 'tier3 = "sympy"', "[reward] unknown tier3 'sympy'; known are math_verify"),
        ('verifier = "r1_zero"', 'tier3 = "math_verify"', "[reward] tier3 = 'math_verify' grades in batches"),
        ("workers = 0", "mix = { format = 1.0, accuracy = 1.0 }", "[reward] unknown reward 'accuracy'"),
        ("workers = 0", "mix = { format = true }", "[reward] mix.format is True (bool); expected a number"),
        ("workers = 0", "mix = 1", "[reward] mix is 1 (int); expected a table of numbers"),
        ('"npu_on_policy"', '"ppo"', "[train] loss_mode is 'ppo'; expected one of vanilla, npu_on_policy"),
        (
            'loss_mode = "npu_on_policy"',
            'loss_mode = "npu_on_policy"\nimportance_weights = "token" #',
            '[train] importance_weights = "token" weighs by the old log-probabilities',
        ),
        ("[model]", "[profile]\nsteps = [0]\n[model]", "[profile] steps is 0; expected at least 1"),
        ("[model]", "[profile]\nsteps = [61]\n[model]", "[profile] steps has 61, and the run's last step is 60"),
        (
            "[model]",
            "[profile]\nsteps = [2]\nranks = [1, 2]\n[model]",
            "[profile] ranks is [1, 2]; expected ranks from",
        ),
        ("[model]", '[profile]\nlevel = "2"\n[model]', "[profile] level is '2'; expected one of level_none, level0"),
        ("[rollout]", "[rollout]\nkv_nz = true #", "[rollout] kv_nz is of graph mode; set graph_mode = true"),
        ("[rollout]", "[rollout]\nrebalance = true #", "[rollout] rebalance is of graph mode; set graph_mode = true"),
        (
            "[rollout]",
            "[rollout]\nrebalance = true\ngraph_mode = true\nrequest_seeds = false #",
            "[rollout] rebalance goes with request_seeds = true",
        ),
        (
            "[rollout]",
            "[rollout]\ngraph_sizes = [4, 8] #",
            "[rollout] graph_sizes is of graph mode; set graph_mode = true",
        ),
        (
            "[rollout]",
            "[rollout]\ngraph_mode = true\ngraph_sizes = [0] #",
            "[rollout] graph_sizes is 0; expected at least 1",
        ),
        ("[run]", "[run", "not valid TOML"),
        ("[rollout]", "[rollout]\ntop_p = 1.5", "[rollout] top_p is 1.5; expected at most 1"),
        ("[rollout]", "[rollout]\ntemprature = 1.0", "[rollout] unknown key 'temprature'; did you mean 'temperature'?"),
        ("memory_share = 0.5", "memory_share = nan", "[rollout] memory_share is nan; expected a finite number"),
        ("learning_rate = 3e-4", "learning_rate = -3e-4", "[train] learning_rate is -0.0003; expected at least 0"),
        ("[cluster]", '[cluster]\ndevice = "nup"', "expected one of sim, npu, cuda; did you mean 'npu'?"),
        ("[cluster]", '[cluster]\ndevice = "npu"', '[cluster] device = "npu" runs models and data of yours'),
        (
            "[cluster]",
            '[cluster]\nhardware = "a4"',
            "[cluster] hardware is 'a4'; expected one of a2_64, a3_128, h20_96, h20_141, h100_80, h200_141, a100_80, "
            "custom",
        ),
        (
            "[cluster]",
            '[cluster]\nhardware = "a3_128"',
            '[cluster] hardware = "a3_128" with device = "sim"; expected none',
        ),
        ("[run]", '[run]\nresume = "always"', "[run] resume is 'always'; expected one of auto, never"),
        ("[model]", '[model]\ncheckpoint = "/x"', '[model] checkpoint goes with kind = "path", and only with it'),
        ("[model]", '[model]\nsizes = "leagl"', "expected one of smallest, legal; did you mean 'legal'?"),
        (
            "[model]",
            '[model]\nmember = "qwen4"',
            "expected one of deepseek_v3, moonlight, qwen3_moe, qwen3, qwen2, llama",
        ),
        (
            "[model]",
            '[model]\nmember = "qwen3"\nsizes = "legal"',
            "[model] the tiny qwen3 has no sizes 'legal'; take 'smallest'",
        ),
        (
            'kind = "tiny"',
            'kind = "random_init"\nmember = "qwen3"\npath = "/x" #',
            '[model] member does not go with kind = "random_init"; remove one of them',
        ),
        (
            'kind = "tiny"',
            'kind = "random_init"\nsizes = "legal"\npath = "/x" #',
            '[model] sizes does not go with kind = "random_init"; remove one of them',
        ),
        ("[data]", '[data]\npath = "/x"', '[data] path does not go with kind = "arithmetic"; remove one of them'),
        ("[actor]", '[actor]\nrecompute = { granularity = "full" }', '[actor.recompute] granularity = "full" needs'),
        (
            "[actor]",
            "[actor]\nrecompute = { layer = 8 }",
            "[actor.recompute] unknown key 'layer'; did you mean 'layers'?",
        ),
        ("[actor]", "[actor]\nrecompute = true", "'recompute' is True (bool); expected a table recompute = { ... }"),
        ("[train]", "[environment]\nHCCL_DEBUG = 1\n[train]", "environment.HCCL_DEBUG is 1 (int); expected a text"),
        ("[train]", '[environment]\n"A-B" = "1"\n[train]', "[environment] 'A-B' cannot be the name of a variable"),
        ("[train]", '[environment]\nA = "1\\u0000"\n[train]', "environment.A is '1\\x00'; expected text of one line"),
        ('name = "sim"', 'name = "../../etc"', "run name '../../etc': use letters, digits"),
        ('name = "sim"', 'name = ""', "run name '': use letters, digits"),
        ('name = "sim"', f'name = "{"n" * 2**20}"', "; expected text of one line, of 4096 characters at most"),
        ("[run]", f"[{'x' * 2**20}]\n[run]", "unknown section 'xxxx"),
        ("[run]", '[run]\noutput_dir = "~nobody-of-that-name/runs"', "there is no home directory of that user"),
        ("[run]", '[run]\nname = "other"', "not valid TOML: Cannot overwrite a value"),
        ("[train]", "[run]\n[train]", "not valid TOML: Cannot declare ('run',) twice"),
        ("steps = 60", f"steps = {'9' * 5000}", "not valid TOML: Exceeds the limit"),
        ("temperature = 1.0", f"temperature = {'9' * 400}", "[rollout] temperature is inf; expected a finite number"),
        ("[train]", f"[environment]\nA = {'[' * 5000}{']' * 5000}\n[train]", "not valid TOML: "),
        ("steps = 60", f"steps = 1{'0' * 26}", f"[run] steps is 1{'0' * 26}; expected at most 2147483647"),
        ("micro_batch_tokens = 16384", f"micro_batch_tokens = {2**31}", "is 2147483648; expected at most 2147483647"),
        ("learning_rate = 3e-4", "learning_rate = 1e30", "[train] learning_rate is 1e+30; expected at most"),
        ("[run]", '[run]\noutput_dir = "/x/${oc.env:HOME}"', "[run] output_dir is '/x/${oc.env:HOME}'; verl's"),
        ("[cluster]", '[cluster]\nhead = "192.0.2.1:6379"', "[cluster] head '192.0.2.1:6379' has a port; expected the"),
        ("[cluster]", '[cluster]\nhead = "[::1]"', "[cluster] head '[::1]' is an IPv6 address; the nodes of"),
        ("[cluster]", '[cluster]\nhead = "fd00::1"', "[cluster] head 'fd00::1' is an IPv6 address"),
        ("[cluster]", '[cluster]\nhead = "10.0.0.999"', "[cluster] head '10.0.0.999' is no IPv4 address"),
        ("[cluster]", '[cluster]\nhosts = ["10.0.0.1:80"]', "[cluster] hosts '10.0.0.1:80' has a port"),
        ("seed = 1", "seed = 4294967296", "[run] seed is 4294967296; expected at most 2147483647"),
        ("[actor]", "[actor]\nswap_optimizer = true", "unknown key 'swap_optimizer'; did you mean 'optimizer'?"),
        ("[actor]", "[actor]\noptimizer_host_share = 0.5", '[actor] optimizer_host_share goes with optimizer = "host"'),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SIM.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_value_where_a_section_belongs_is_said(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("run = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'run' is 3 \(int\); expected a section \[run\]"):
        load(path)


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_what_editors_elsewhere_write_is_read(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(change(SIM).encode())
    assert load(path).run.steps == 60


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "no.toml")


def test_whole_numbers_serve_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SIM.replace("temperature = 1.0", "temperature = 1"), encoding="utf-8")
    temperature = load(path).rollout.temperature
    assert (temperature, type(temperature)) == (1.0, float)


def test_options_replace_values_and_none_does_not() -> None:
    config = load(CONFIGS / "sim.toml").with_run(steps=2, name=None, seed=7)
    assert (config.run.steps, config.run.name, config.run.seed) == (2, "sim", 7)
    data = config.with_json_data(Path("/x/gsm8k.json"), max_response_tokens=64).data
    assert (data.kind, data.path, data.max_response_tokens) == ("json", "/x/gsm8k.json", 64)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('head = "192.0.2.1"', "", "[cluster] key 'head' is missing; give the address of the head node"),
        ('checkpoint = "', 'path2 = "', "[model] unknown key 'path2'; did you mean 'path'?"),
        ('kind = "path"', 'kind = "random_init"', '[model] checkpoint goes with kind = "path"'),
        ('kind = "parquet"', 'kind = "json"', '[data] kind = "json" needs path'),
        ('architecture = "deepseek_v3_671b"', 'architecture = "deepseek_v3"', "did you mean 'deepseek_v3_671b'?"),
        ("nodes = 16", 'nodes = 16\nhosts = ["a", "b"]', "[cluster] hosts names 2 nodes, and nodes is 16"),
        ("nodes = 16", 'nodes = 16\nhosts = ["a", "a"]', "[cluster] hosts names a node twice"),
        ('head = "192.0.2.1"', 'head = "the first one"', "[cluster] head 'the first one' is no address"),
        (
            "nodes = 16",
            "nodes = 16\nhccl_base_port = 65530",
            "[cluster] hccl_base_port is 65530; expected at most 65504",
        ),
    ],
)
def test_a_mistake_about_a_cluster_is_one_line_too(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = (CONFIGS / "a3_256die.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "run.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
