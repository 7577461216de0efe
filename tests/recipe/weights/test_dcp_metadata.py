# SPDX-License-Identifier: Apache-2.0
"""`.metadata` written by hand is, to torch, what torch would have written."""

from __future__ import annotations

import pickle

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from recipe.weights.dcp_metadata import TORCH_DTYPES, Blob, Chunk, StoredTensor, metadata_pickle

sizes = st.lists(st.integers(0, 2**33), max_size=3).map(tuple)
blobs = st.builds(Blob, st.sampled_from(["__0_0.distcp", "__1_0.distcp"]), st.integers(0, 2**40), st.integers(0, 2**33))
tensors = st.builds(
    StoredTensor,
    st.sampled_from(sorted(TORCH_DTYPES)),
    sizes,
    st.lists(st.builds(Chunk, sizes, sizes, blobs), max_size=3, unique_by=lambda chunk: chunk.offsets),
)


def by_torch(tensors: dict[str, StoredTensor], objects: list[str], empty: Blob) -> Metadata:
    state: dict[str, object] = {}
    storage = {}
    for name, tensor in tensors.items():
        properties = TensorProperties(dtype=getattr(torch, TORCH_DTYPES[tensor.dtype]))
        chunks = [ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.shape)) for c in tensor.chunks]
        state[name] = TensorStorageMetadata(properties, torch.Size(tensor.shape), chunks)
        for number, chunk in enumerate(tensor.chunks):
            index = MetadataIndex(name, torch.Size(chunk.offsets), number)
            storage[index] = _StorageInfo(chunk.blob.file, chunk.blob.offset, chunk.blob.nbytes)
    for name in objects:
        state[name] = BytesStorageMetadata()
        storage[MetadataIndex(name)] = _StorageInfo(empty.file, empty.offset, empty.nbytes)
    return Metadata(state, storage_data=storage)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text("ab.", min_size=1), tensors, max_size=4),
    st.lists(st.text("xy/", min_size=1), unique=True, max_size=3),
    blobs,
)
def test_torch_reads_what_it_would_have_written(
    tensors: dict[str, StoredTensor], objects: list[str], empty: Blob
) -> None:
    metadata = pickle.loads(metadata_pickle(tensors, objects, empty))
    assert metadata == by_torch(tensors, objects, empty)
    # Equality does not look at these: the number is a hint for readers, the attribute Megatron-core's own.
    assert [index.index for index in metadata.storage_data] == [
        *(number for tensor in tensors.values() for number in range(len(tensor.chunks))), *(None for _ in objects)
    ]  # fmt: skip
    assert metadata.mcore_data == {name: {} for name in tensors}
