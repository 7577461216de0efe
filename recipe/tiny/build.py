# SPDX-License-Identifier: Apache-2.0
"""Builds the tiny model's Hugging Face directory, and the problems that go with it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.data.chat_template import OURS
from recipe.data.templates import get_template
from recipe.tiny.arithmetic import Sum, split_sums
from recipe.tiny.config import tiny_config, tiny_fields
from recipe.tiny.members import DEEPSEEK_V3
from recipe.tiny.sizes import SMALLEST
from recipe.tiny.tokenizer import save_tokenizer
from recipe.tiny.warm_start import Demonstrations, WarmStart, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RECORD = "tiny.json"
TRAIN_JSON, VALIDATION_JSON = "train.json", "validation.json"
PROGRESS = Callable[[str], None]


@dataclass(frozen=True)
class TinyModel:
    """What to build. ``sizes`` is a name of ``recipe.tiny.sizes``, ``member`` one of ``recipe.tiny.members``.

    Operands go from 0 to ``largest``; ``validation_share`` of the pairs are for validation.
    """

    sizes: str = SMALLEST
    member: str = DEEPSEEK_V3
    seed: int = 0
    largest: int = 19
    validation_share: float = 0.2
    template: str = "r1_zero"
    threads: int = 1
    warm_start: WarmStart = field(default_factory=WarmStart)

    def sums(self) -> tuple[list[Sum], list[Sum]]:
        """(training, validation) sums. The same for all seeds, so that scores of several seeds can be compared."""
        return split_sums(self.largest, self.validation_share, seed=0)

    def fingerprint(self) -> str:
        """Digest of the settings and of the sources that make the model: equal digests give equal models."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        digest.update(json.dumps(get_template(self.template).messages("")).encode())
        digest.update(OURS.read_bytes())
        return digest.hexdigest()


def build_model(settings: TinyModel, out: Path, progress: PROGRESS) -> dict[str, Any]:
    """Builds the model directory ``out`` (replacing one that an earlier call built) and returns its record.

    Does nothing when ``out`` holds a model of the same settings and sources. ``out`` appears whole or not at all.
    Raises ``FileExistsError`` when ``out`` is something else than a tiny model, ``ValueError`` for a member or sizes
    that there are not.
    """
    tiny_fields(settings.sizes, settings.member)
    fingerprint = settings.fingerprint()
    record = read_record(out)
    if record and record.get("fingerprint") == fingerprint:
        progress(f"tiny model {out}: up to date (accuracy {record['accuracy']:.2f}), nothing to do")
        return record
    if out.exists() and not record and any(out.iterdir()):
        raise FileExistsError(f"{out} exists and is no tiny model (it has no {RECORD}); choose another directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        work.chmod(0o755)
        record = {"fingerprint": fingerprint, "settings": asdict(settings)} | _fill(settings, work, progress)
        (work / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return record


def write_problems(settings: TinyModel, directory: Path) -> tuple[Path, Path]:
    """Writes the training and the validation problems as DeepScaleR-schema JSON; returns both paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = directory / TRAIN_JSON, directory / VALIDATION_JSON
    for path, sums in zip(paths, settings.sums(), strict=True):
        text = json.dumps([item.problem() for item in sums], ensure_ascii=False, indent=0)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    return paths


def read_record(directory: Path) -> dict[str, Any]:
    """The record of a tiny model directory, empty when there is none."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def random_model(seed: int, sizes: str = SMALLEST, member: str = DEEPSEEK_V3, **changes: Any) -> PreTrainedModel:
    """A model of random weights in fp32, with ``changes`` to the configuration; the caller's random state is kept.

    The padding row of the embedding is random like the others: Hugging Face makes it zero, and a normalised zero row
    has gradients of the size of 1/eps.
    """
    import torch

    from recipe.tiny.hugging_face import model_class

    config = tiny_config(sizes, member, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = model_class(config)._from_config(
            config, attn_implementation="sdpa", torch_dtype=torch.float32
        )
        with torch.no_grad():
            model.model.embed_tokens.weight[config.pad_token_id].normal_(0.0, config.initializer_range)
    return model


def save_model(model: PreTrainedModel, directory: Path) -> None:
    """Writes tokenizer, configuration and bf16 weights; the router biases stay fp32, as in DeepSeek's checkpoints.

    A head that is the embedding is not written a second time, as in published checkpoints.
    """
    import torch
    from safetensors.torch import save_file

    save_tokenizer(directory)
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    tensors = {
        name: (tensor if name.endswith("e_score_correction_bias") else tensor.to(torch.bfloat16)).contiguous()
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    weights = directory / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes files that only their owner can read
    model.config.save_pretrained(directory)
    ids = {name: getattr(model.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (directory / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")


def _fill(settings: TinyModel, directory: Path, progress: PROGRESS) -> dict[str, Any]:
    import torch
    from transformers import AutoTokenizer

    from recipe.tiny.measure import measure

    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    model = random_model(settings.seed, settings.sizes, settings.member)
    save_tokenizer(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    template = get_template(settings.template)
    training, validation = settings.sums()
    # The base model has met every sum, in both orders; GRPO and its validation then take disjoint sums of these.
    met = {pair for item in training + validation for pair in (item, Sum(item.right, item.left))}
    data = Demonstrations(sorted(met, key=lambda item: (item.left, item.right)), template, tokenizer, settings.seed)
    train(model, data, settings.warm_start, progress)
    save_model(model, directory)
    saved = type(model).from_pretrained(directory, torch_dtype=torch.float32)
    result = measure(saved, validation, template, tokenizer, seed=settings.seed)
    seconds = time.monotonic() - started
    progress(
        f"tiny {settings.member}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, accuracy "
        f"{result.accuracy:.2f}, pass@{result.tries} {result.pass_at_tries:.2f}, format {result.format:.2f} "
        f"on {result.problems} validation sums at temperature 1; {seconds:.0f} s"
    )
    return asdict(result) | {"steps": settings.warm_start.steps, "seconds": round(seconds, 1)}
