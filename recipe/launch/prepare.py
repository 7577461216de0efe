# SPDX-License-Identifier: Apache-2.0
"""What a run reads, made before it starts: model, problems as Parquet, and the Megatron checkpoint.

Each is made by the project's own command-line tools in a child process and kept in the cache by the hash of its inputs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from recipe.launch.cache import cached, digest
from recipe.reward.processes.tier3 import require
from recipe.runfile.derive import Inputs, derive_run
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.paths import REPO, cache_dir, import_path
from recipe.runfile.schema import RunConfig
from recipe.signals import die_with_parent

Say = Callable[[str], None]
# Padded lengths are multiples of this, so that slightly different data gives the same shapes.
PROMPT_STEP = 8


def prepare(config: RunConfig, say: Say, log: Path) -> Inputs:
    """Make or find everything the run reads.

    Args:
        config: the run.
        say: takes one line about what is being done.
        log: file that gets the tools' output.

    Raises:
        ConfigError: the run file asks for what the model, the data or what is installed do not allow.
        LaunchError: a tool failed; the message carries the last line it printed.
    """
    _require_tier3(config)
    log.parent.mkdir(parents=True, exist_ok=True)
    made = prepare_model(config, say, log)
    model = made / "model" if config.model.kind == "tiny" else made
    if config.model.architecture is not None:
        _ = derive_run(config).architecture  # refuses a config.json of another model
    checkpoint = _checkpoint(config, model, say, log)
    if config.data.kind == "parquet":
        train, validation = _given_parquet(config)
        return Inputs(model, checkpoint, train, validation, config.data.max_prompt_tokens)
    data = _data(config, made, say, log)
    inputs = Inputs(
        model, checkpoint, data / "train.parquet", data / "validation.parquet", config.data.max_prompt_tokens
    )
    lengths = _prompt_lengths(model, data, derive_run(config, inputs).chat_template_file, log)
    longest = padded_prompt_tokens(lengths, config.data.max_prompt_tokens, say)
    return dataclasses.replace(inputs, prompt_tokens=longest)


def _checkpoint(config: RunConfig, model: Path, say: Say, log: Path) -> Path | None:
    if config.model.kind == "random_init":
        return None
    if config.model.checkpoint is None:
        return _converted(model, say, log)
    return _given(config.model.checkpoint, "[model] checkpoint", ".metadata", "scripts/convert_hf_to_mcore.py")


def _given_parquet(config: RunConfig) -> tuple[Path, Path]:
    """The files that the run file names, to learn from and to validate on."""
    maker = "scripts/json_to_parquet.py"
    train = _given(str(config.data.train_path), "[data] train_path", "", maker)
    validation = _given(str(config.data.validation_path), "[data] validation_path", "", maker)
    _require_form({"train_path": train, "validation_path": validation}, maker)
    return train, validation


def _given(path: str, key: str, inside: str, maker: str) -> Path:
    """The file or directory that the run file names; `inside` is what a directory must hold."""
    absolute = Path(path).expanduser().absolute()
    if not (absolute / inside).is_file():
        what = f"holds no {inside}" if inside else "is not a file"
        raise ConfigError(f"{key}: {absolute} {what}; give what {maker} made")
    return absolute


def _require_form(files: dict[str, Path], maker: str) -> None:
    """Refuse Parquet files on which verl would fail in the first batch, or while it filters the prompts."""
    from recipe.checks.facts.problems import parquet_faults
    from recipe.checks.finding import CannotTell

    for key, file in files.items():
        try:
            faults = parquet_faults(file)
        except CannotTell:  # only the driver's Python has pyarrow
            return
        if faults:
            raise ConfigError(f"[data] {key}: {file}: {faults[0]}; give what {maker} made")


def _require_tier3(config: RunConfig) -> None:
    """Refuse a run whose grader is not installed; without this it would fail at its first answer, hours later."""
    if config.reward.tier3 is not None:
        try:
            require(config.reward.tier3)
        except ValueError as error:
            raise ConfigError(f"[reward] {error}") from None


def prepare_model(config: RunConfig, say: Say, log: Path) -> Path:
    """The tiny model's directory (with `model/` and `problems/`), or the Hugging Face directory of the run file."""
    if config.model.kind != "tiny":
        path = Path(str(config.model.path)).expanduser().absolute()
        if not (path / "config.json").is_file():
            raise ConfigError(f"[model] path: {path} holds no config.json; give a Hugging Face model directory")
        return path
    steps = config.model.warm_start_steps
    model = config.model
    settings = {"member": model.member, "sizes": model.sizes, "seed": config.run.seed, "warm_start_steps": steps}
    sources = [*REPO.glob("recipe/tiny/*.py"), REPO / "data" / "templates.toml", REPO / "data" / "chat_template.jinja"]

    def build(directory: Path) -> None:
        options = [] if steps is None else ["--warm-start-steps", str(steps)]
        say(f"making the tiny {model.member} (seed {config.run.seed}): warm start on sums, one to two minutes, once")
        _tool(
            "make_tiny_model.py",
            *("--out", str(directory / "model"), "--problems", str(directory / "problems")),
            *("--member", model.member, "--sizes", model.sizes, "--seed", str(config.run.seed), *options),
            log=log,
        )

    path, was_cached = cached(cache_dir(), "tiny", digest(settings, sources), build)
    if was_cached:
        say("tiny model: from the cache")
    return path


def _data(config: RunConfig, made: Path, say: Say, log: Path) -> Path:
    if config.data.kind == "json":
        source = Path(str(config.data.path)).expanduser().absolute()
        if not source.is_file():
            raise ConfigError(f"data: {source} is not a file; give a JSON list of problem, answer and solution")
        arguments = ["--json_path", str(source), "--train_data_ratio", str(config.data.train_share)]
        files, name = [source], re.sub(r"\W", "_", source.stem)
    else:
        problems = made / "problems"
        arguments = ["--json_path", str(problems / "train.json"), "--test_json_path", str(problems / "validation.json")]
        files, name = sorted(problems.glob("*.json")), "arithmetic"
    rule = next(iter(config.reward.mix), config.reward.verifier)
    arguments += ["--template", config.data.template, "--data_source", name, "--seed", str(config.run.seed)]
    arguments += ["--verifier", rule]
    rows = [str(config.data.validation_problems), str(config.rollout.validation_samples)]
    settings = {"arguments": [*(a for a in arguments if not a.endswith(".json")), *rows]}
    sources = [
        *files,
        *REPO.glob("recipe/data/*.py"),
        *REPO.glob("recipe/reward/**/*.py"),
        *template_files(config.data.template),
        Path(__file__).parent / "validation_rows.py",
    ]

    def build(directory: Path) -> None:
        say(f"converting the problems to Parquet ({name})")
        _tool("json_to_parquet.py", "--output_dir", str(directory), *arguments, log=log)
        test, out = str(directory / "test.parquet"), str(directory / "validation.parquet")
        _run("-m", "recipe.launch.validation_rows", test, *rows, out, log=log)

    return cached(cache_dir(), "data", digest(settings, sources), build)[0]


def template_files(template: str) -> list[Path]:
    """The file that the template of a run is read from: ours for a name, the user's for FILE.toml or FILE.toml:NAME."""
    name, dot, _ = template.partition(".toml")
    if not dot:
        return [REPO / "data" / "templates.toml"]
    file = Path(name + dot)
    if not file.is_file():
        raise ConfigError(f"[data] template: {file} is not a file; name one of data/templates.toml, or give FILE.toml")
    return [file]


def _converted(model: Path, say: Say, log: Path) -> Path:
    weights = sorted(model.glob("*.safetensors"))
    # Weights may be large, so their sizes and times stand for their contents.
    settings = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in weights}
    sources = [model / "config.json", *REPO.glob("recipe/weights/*.py")]

    def build(directory: Path) -> None:
        say("converting the model to a Megatron checkpoint")
        _tool("convert_hf_to_mcore.py", "--load-dir", str(model), "--save-dir", str(directory / "torch_dist"), log=log)

    key = digest({"model": str(model), "weights": settings}, sources)
    return cached(cache_dir(), "checkpoint", key, build)[0] / "torch_dist"


def _prompt_lengths(model: Path, data: Path, template: Path | None, log: Path) -> list[int]:
    files = [] if template is None else [template]

    def build(directory: Path) -> None:
        arguments = [model, data, directory / "lengths.json", *files]
        _run("-m", "recipe.launch.prompt_lengths", *map(str, arguments), log=log)

    key = digest({"model": str(model), "data": str(data)}, [*sorted(model.glob("*token*")), *files])
    directory, _ = cached(cache_dir(), "lengths", key, build)
    lengths: list[int] = json.loads((directory / "lengths.json").read_text(encoding="utf-8"))
    return lengths


def padded_prompt_tokens(lengths: list[int], limit: int, say: Say) -> int:
    """The padded prompt length: that of the longest prompt with at most `limit` tokens, rounded up within the limit.

    Raises:
        LaunchError: no prompt is that short.
    """
    fitting = [length for length in lengths if length <= limit]
    if not fitting:
        shortest = f"the shortest prompt has {min(lengths)} tokens; raise it" if lengths else "the data has no problems"
        raise ConfigError(f"[data] max_prompt_tokens is {limit}, but {shortest}")
    if len(fitting) < len(lengths):
        say(f"data: {len(lengths) - len(fitting)} of {len(lengths)} prompts have over {limit} tokens and are left out")
    return min(limit, -(-max(fitting) // PROMPT_STEP) * PROMPT_STEP)


def _tool(script: str, *arguments: str, log: Path) -> None:
    """Run one of our scripts."""
    _run(str(REPO / "scripts" / script), *arguments, log=log)


def _run(*arguments: str, log: Path) -> None:
    """Run Python with `arguments` on the CPU; its output goes to `log`.

    Raises:
        LaunchError: it failed. The message ends with the last line of its output.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": import_path(),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache_dir() / "huggingface"),
        # These tools need no device, and this may run while the simulated one is being installed.
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    }
    with open(log, "ab") as output:
        start = output.tell()
        code = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            preexec_fn=die_with_parent,
        ).returncode
    if code:
        text = log.read_bytes()[start:].decode("utf-8", "replace").strip()
        last = text.splitlines()[-1] if text else "it printed nothing"
        name = next(argument for argument in arguments if argument != "-m")
        raise LaunchError(f"{Path(name).name} failed with exit code {code}: {last} (log: {log})")
