# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's save: what it copies and which files it writes, counted; on a die that is alone, without writing them.

verl's own `save_checkpoint` runs, with Megatron-core's plans, copies and writing processes. Alone, two things are told:
which parts of the checkpoint the other dies of the stage hold, among whom the writing is divided, and that what nobody
else has said is complete; and the writers count bytes in place of writing them, so that no contents are asked for.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from recipe.plan.saving import FROM_DIES, FROM_HOST

# A file of one rank, and what rank 0 makes of what all tell it: alone it cannot know.
_PART, _INDEX = ".distcp", ".metadata"
_EXPERTS, _STATES = ".experts.", "optimizer states of rank "


@dataclass
class Saved:
    """What the save of a checkpoint takes on one die.

    Attributes:
        copies: bytes that are copied for the writing processes, by the plan's names.
        of_stage: the same on the average of the stage's dies, among which the writing of weights is divided.
        files: bytes by name, of those that this die writes; without rank 0's index of them all.
    """

    copies: dict[str, int] = field(default_factory=lambda: {FROM_DIES: 0, FROM_HOST: 0})
    of_stage: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


def save(actor: Any, directory: Path, step: int, copied: Callable[[], None] = lambda: None) -> Saved:
    """Save a checkpoint as verl's trainer asks for it.

    Args:
        actor: verl's worker.
        directory: of the checkpoint, for all that is saved.
        step: its number.
        copied: called when all copies are there, before they are written.
    """
    from megatron.core.dist_checkpointing.strategies import fully_parallel
    from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

    saved, shares = Saved(), _Shares()
    prepare, preload = FileSystemWriterAsync.prepare_write_data, FileSystemWriterAsync.preload_tensors
    retrieve, clone = FileSystemWriterAsync.retrieve_write_results, torch.Tensor.clone
    determine = fully_parallel.determine_main_replica_uniform_distribution

    def counting_clone(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = clone(tensor, *args, **kwargs)
        saved.copies[FROM_HOST] += made.nbytes if made.is_cpu else 0
        return made

    def prepare_write_data(self: Any, *args: Any) -> None:
        torch.Tensor.clone = counting_clone
        try:
            prepare(self, *args)
        finally:
            torch.Tensor.clone = clone

    def preload_tensors(buckets: Any, *args: Any) -> Any:
        loaded = preload(buckets, *args)
        copied()
        for (_, _, (_, tensors)), (_, _, (_, copies)) in zip(buckets, loaded, strict=True):
            for (_, tensor), (_, copy) in zip(tensors, copies, strict=True):
                if copy is not tensor:
                    saved.copies[FROM_HOST if tensor.is_cpu else FROM_DIES] += copy.nbytes
        return loaded

    def retrieve_write_results(self: Any) -> Any:
        results = retrieve(self)
        for result in results:
            place = result.storage_data
            name = str((Path(self.path) / place.relative_path).relative_to(directory))
            saved.files[name] = max(saved.files.get(name, 0), place.offset + place.length)
        return results

    def determined(*args: Any, **kwargs: Any) -> Any:
        distribution = determine(*args, **kwargs)
        shares.read(distribution)
        return distribution

    FileSystemWriterAsync.prepare_write_data = prepare_write_data
    FileSystemWriterAsync.preload_tensors = staticmethod(preload_tensors)
    FileSystemWriterAsync.retrieve_write_results = retrieve_write_results
    fully_parallel.determine_main_replica_uniform_distribution = determined
    try:
        actor.save_checkpoint(str(directory / "actor"), global_step=step)
    finally:
        FileSystemWriterAsync.prepare_write_data = prepare
        FileSystemWriterAsync.preload_tensors = staticmethod(preload)
        FileSystemWriterAsync.retrieve_write_results = retrieve
        fully_parallel.determine_main_replica_uniform_distribution = determine
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file.suffix != _PART and file.name != _INDEX:
            saved.files[str(file.relative_to(directory))] = file.stat().st_size
    saved.of_stage = {**saved.copies, FROM_DIES: saved.copies[FROM_DIES] + shares.average_less_own}
    return saved


class _Shares:
    """Bytes of weights that each die of the group writes."""

    def __init__(self) -> None:
        self.average_less_own = 0

    def read(self, distribution: Any) -> None:
        """Of Megatron-core's `ShardDistribution`; None where the die is the only one of its group."""
        from megatron.core import parallel_state
        from megatron.core.dist_checkpointing.exchange_utils import _shard_size

        if distribution is None:
            return
        group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        sizes = [0] * dist.get_world_size(group)
        for shard, rank in distribution.main_rank_for_shard.items():
            metadata = distribution.shard_to_metadata[shard]
            if metadata.flattened_range is None and not metadata.key.startswith(_STATES):
                sizes[rank] += int(_shard_size(metadata))
        self.average_less_own = sum(sizes) // len(sizes) - sizes[dist.get_rank(group)]


def steer_save(optimizer: Any) -> None:
    """From now on a save finds what the other dies hold, writes nothing, and is not held incomplete for that.

    Args:
        optimizer: the actor's.
    """
    from megatron.core.dist_checkpointing import state_dict_utils
    from megatron.core.dist_checkpointing.strategies import filesystem_async, fully_parallel
    from megatron.core.dist_checkpointing.strategies import torch as strategy
    from megatron.core.dist_checkpointing.validation import validate_sharding_integrity
    from torch.distributed.checkpoint.metadata import Metadata

    def validate(metadata: Any, *args: Any, **kwargs: Any) -> None:
        validate_sharding_integrity([], *args, **kwargs)

    state_dict_utils.validate_sharding_integrity = fully_parallel.validate_sharding_integrity = validate
    determine = fully_parallel.determine_main_replica_uniform_distribution
    peers = _Peers(optimizer)

    def determined(*args: Any, **kwargs: Any) -> Any:
        gather = dist.all_gather_object
        dist.all_gather_object = peers.gathering(gather)
        try:
            return determine(*args, **kwargs)
        finally:
            dist.all_gather_object = gather

    fully_parallel.determine_main_replica_uniform_distribution = determined
    strategy.MCoreSavePlanner.create_global_plan = lambda self, plans: (plans, Metadata({}))
    writer = filesystem_async.FileSystemWriterAsync
    writer.finish = lambda self, metadata, results: None
    write = writer.write_preloaded_data

    def write_preloaded_data(transforms: Any, number: int, bucket: Any, results: Any, count: Any, sync: bool) -> None:
        torch.save = _length_only(torch.save)  # of this process, which writes one file and ends
        write(transforms, number, bucket, results, count, False)

    writer.write_preloaded_data = staticmethod(write_preloaded_data)
    filesystem_async.open = lambda name, mode: _Measure()


def _length_only(save: Callable[..., None]) -> Callable[..., None]:
    """`torch.save` into a `_Measure`, without the bytes of tensors."""

    def save_length(tensor: torch.Tensor, file: Any) -> None:
        alone = _Measure()
        with torch.serialization.skip_data():
            save(tensor, alone)
        getattr(file, "raw", file).seek(alone.tell(), io.SEEK_CUR)

    return save_length


class _Measure(io.RawIOBase):
    """A file that keeps nothing but its length."""

    def __init__(self) -> None:
        self._place = self._end = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.seek(size, io.SEEK_CUR)
        return size

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._end}[whence]
        self._end = max(self._end, self._place)
        return self._place


class _Peers:
    """What the other dies of the data-parallel group hold of the checkpoint, from what this die holds.

    All have the same weights but for the experts, which those with the same place in their expert-parallel group share;
    of the optimizer's states each has a part of its own, as large as its range of the buffers.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    def gathering(self, gather: Any) -> Any:
        """`all_gather_object` that gives what every one of them has."""

        def all_gather_object(object_list: list[Any], obj: Sequence[Any], group: Any = None) -> None:
            gather(object_list, obj, group=group)
            ranks, own = dist.get_process_group_ranks(group), dist.get_rank()
            states = [shard for shard in obj if shard.flattened_range is not None]
            held = sum(shard.flattened_range.stop - shard.flattened_range.start for shard in states)
            elements = self._elements(own)
            object_list[:] = [
                obj if rank == own else list(self._of(rank, own, obj, held * self._elements(rank) // max(1, elements)))
                for rank in ranks
            ]

        return all_gather_object

    def _of(self, rank: int, own: int, shards: Sequence[Any], states: int) -> Iterator[Any]:
        from megatron.core import parallel_state

        experts = parallel_state.get_expert_model_parallel_group()
        weights = [shard for shard in shards if shard.flattened_range is None]
        for shard in weights:
            replica = shard.replica_id
            # In their group one of them is the first.
            first = replica if isinstance(replica, int) else (*replica[:-1], 0)
            place = _place(rank, experts)
            if _EXPERTS in shard.key and place != _place(own, experts):
                yield dataclasses.replace(shard, key=f"{shard.key} of {place}", replica_id=first)
            else:
                yield dataclasses.replace(shard, replica_id=first)
        if states:
            shape = (states,)
            yield dataclasses.replace(
                weights[0], key=f"{_STATES}{rank}", dtype=torch.float32, local_shape=shape, global_shape=shape,
                global_offset=(0,), axis_fragmentations=(1,), replica_id=0, prepend_axis_num=0,
            )  # fmt: skip

    def _elements(self, rank: int) -> int:
        """Of all the ranges that the optimizer of a rank of this stage updates."""
        parts = getattr(self._optimizer, "chained_optimizers", [self._optimizer])
        return sum(_in_range(buffer, part, rank) for part in parts for buffer in part.buffers)


def _in_range(buffer: Any, part: Any, rank: int) -> int:
    """Elements of parameters, without padding, in a rank's ranges of a buffer, one of each bucket."""
    size, place = dist.get_world_size(part.data_parallel_group), _place(rank, part.data_parallel_group)
    elements = 0
    for bucket in buffer.buckets:
        length = bucket.grad_data.numel() // size
        start = bucket.offset + place * length
        for first, last, _ in buffer.param_index_map.values():
            elements += max(0, min(last, start + length) - max(first, start))
    return elements


def _place(rank: int, group: Any) -> int:
    """The place of a rank of this stage in its own group of the kind of `group`, whose ranks are equally far apart."""
    ranks = dist.get_process_group_ranks(group)
    step = ranks[1] - ranks[0] if len(ranks) > 1 else 1
    return rank // step % len(ranks)
