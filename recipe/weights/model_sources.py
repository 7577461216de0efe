# SPDX-License-Identifier: Apache-2.0
"""The tensors of a Hugging Face checkpoint that its config.json's model consists of, and what is left behind."""

from __future__ import annotations

from recipe.weights import key_maps
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import HfCheckpoint
from recipe.weights.layout import MegatronLayout
from recipe.weights.source import Reader, Source, make_sources
from recipe.weights.torch_pickle import STORAGE_CLASS

_COMPARED = 4 * 2**20


def sources_of(checkpoint: HfCheckpoint, layout: MegatronLayout) -> tuple[dict[str, Source], tuple[str, ...]]:
    """The source of every tensor of the layout, and the names of the tensors that the trained model has no use for.

    Raises WeightsError for a tensor that is missing, has another shape than config.json gives it, cannot be read, or
    has no place in the model.
    """
    stored = make_sources(checkpoint.tensors)
    sources: dict[str, Source] = {}
    for place in layout.places:
        source = stored.get(place.hf_name)
        if source is None:
            raise WeightsError(
                f"{checkpoint.directory}: no tensor {place.hf_name} in any shard; config.json says the model has it"
            )
        if source.shape != place.hf_shape:
            raise WeightsError(f"{source.where} is {list(source.shape)}, config.json makes it {list(place.hf_shape)}")
        if source.dtype not in STORAGE_CLASS:
            known = ", ".join(STORAGE_CLASS)
            raise WeightsError(f"{source.where} is {source.dtype}; known are FP8 with scales and {known}")
        sources[source.name] = source
    dropped = key_maps.droppable(stored, checkpoint.config)
    unknown = sorted(set(stored) - set(sources) - set(dropped))
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise WeightsError(f"{stored[unknown[0]].where}{more} has no place in the model of config.json")
    if "lm_head.weight" in dropped:
        _check_tied(stored["lm_head.weight"], sources["model.embed_tokens.weight"])
    return sources, dropped


def _check_tied(head: Source, embedding: Source) -> None:
    """Require that an output head which config.json ties to the embedding, if it is in the checkpoint, is an equal
    copy."""
    reader = Reader()
    try:
        same = head.entry.dtype == embedding.entry.dtype and head.shape == embedding.shape
        for at in range(0, head.nbytes if same else 0, _COMPARED):
            count = min(_COMPARED, head.nbytes - at)
            head_bytes, embedding_bytes = bytearray(count), bytearray(count)
            reader.read(head, at, memoryview(head_bytes))
            reader.read(embedding, at, memoryview(embedding_bytes))
            if head_bytes != embedding_bytes:
                same = False
                break
    finally:
        reader.close()
    if not same:
        raise WeightsError(
            f"{head.where} differs from {embedding.where}, and config.json ties them (tie_word_embeddings); set it to "
            "false, or take the tensor out"
        )
