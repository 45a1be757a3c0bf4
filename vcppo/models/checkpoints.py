"""Saving models for others and states for ourselves, whole or not at all.

A state whose tensors are shards of many processes goes to a folder beside the state's file, in torch's distributed
format: each process writes what it holds, and any other number of processes can read it.
"""

import errno
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, Shard, empty
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import custom_object_save

from vcppo.errors import CheckpointError, DiskError
from vcppo.models.distributed import mesh, world
from vcppo.models.remote_code import OF_A_CHECKPOINT
from vcppo.models.shard_metadata import ShardReader
from vcppo.models.sharding import base_class, configured_dropouts, named_weights
from vcppo.system.disk import RESERVE_BYTES, check_room, free_bytes, writing
from vcppo.system.files import sync_tree, whole_file, whole_folder

# What keeps a whole file from being read: no right, too many open files, a server of files that is away.
PASSING = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}
SHARDS = "shards"  # key of a state that names the folder its shards are in


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Write a transformers folder: config, safetensors, tokenizer; it loads without vcppo. Adapters are merged.

    Raises:
        DiskError: there is no room for it, as far as can be foreseen, or the disk refuses.
    """
    weights: dict[str, Tensor] = {}
    for name, weight in named_weights(model):  # every process takes part in the gather, the main one stores the result
        if world().is_main:
            weights[name] = weight.to("cpu", copy=True)
    if world().is_main:
        check_room(path, sum(weight.nbytes for weight in weights.values()))
        model.config.architectures = [base_class(model).__name__]
        with whole_folder(path) as folder:
            with configured_dropouts(model):
                model.config.save_pretrained(folder)
            if model.can_generate():
                model.generation_config.save_pretrained(folder)
            save_torch_state_dict(weights, folder)
            tokenizer.save_pretrained(folder)
            if base_class(model).__module__.startswith(f"{OF_A_CHECKPOINT}."):
                custom_object_save(model, folder, config=model.config)
    world().wait()


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and numbers that a stage resumes from; replaced in one move, shards first.

    Raises:
        DiskError: there is no room for it, as far as can be foreseen, or the disk refuses; the state before stays.
    """
    shards: dict[str, DTensor] = {}
    unsharded = _map(state, lambda name, x: _take(shards, name, x) if isinstance(x, DTensor) else x)
    if world().is_main:
        check_room(path, _bytes_of(unsharded) + sum(shard.nbytes for shard in shards.values()))
    folder = None
    if shards:
        folder = path.with_name(f"{path.stem}-{_next_number(path)}.shards")
        failure = _failure(lambda: save(dict(shards), checkpoint_id=folder))
        if failure is not None:
            full = free_bytes(path) < RESERVE_BYTES  # what another process met comes without its cause
            shutil.rmtree(folder, ignore_errors=True)
            with writing(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else failure
        world().wait()  # all of them are written
    if world().is_main:
        if folder is not None:
            sync_tree(folder)
        with whole_file(path) as temporary, open(temporary, "wb") as file:  # which says why it cannot be written
            torch.save({**unsharded, **({SHARDS: folder.name} if folder else {})}, file)
        for old in _shard_folders(path):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
    world().wait()


def remove_state(path: Path) -> None:
    """Remove a state with its shards; one process calls this."""
    path.unlink(missing_ok=True)
    for shards in _shard_folders(path):
        shutil.rmtree(shards, ignore_errors=True)


def load_state(path: Path) -> dict[str, Any] | None:
    """Return the state saved there, None if there is none; sharded tensors come sharded over the present processes.

    Other tensors are in the CPU's memory, whatever device they were on.

    Raises:
        CheckpointError: the file is not a state, for example cut short by a full disk.
        DiskError: it cannot be read now, and may be whole.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        name = state.pop(SHARDS, None)
        if name is None:
            return state
        tensors = _load_shards(path.with_name(name))
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        if isinstance(error, OSError) and error.errno in PASSING:
            reason = os.strerror(error.errno or 0)
            raise DiskError(f"{path}: cannot be read now ({reason}); it stays, and the same command goes on") from error
        raise CheckpointError(f"{path}: not a readable state ({type(error).__name__})") from None
    restored: dict[str, Any] = _map(state, lambda name, x: tensors.get(name, x))
    return restored


def saved_number(path: Path, name: str) -> int | None:
    """Return a number of a saved state, None without one that can be read; unlike `load_state`, by one process alone.

    The one that failed may be the only one to come here, and shards are read by all together.
    """
    try:
        number: int = torch.load(path, weights_only=True, map_location="cpu", mmap=True)[name]
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    return number


def _load_shards(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of the folder, sharded over the present processes; `sharding.like` makes it fit a model."""
    saved = ShardReader(folder).read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {}
    for name, kind in saved.items():
        assert isinstance(kind, TensorStorageMetadata)
        dtype = kind.properties.dtype
        tensors[name] = empty(*kind.size, dtype=dtype, device_mesh=mesh(1), placements=(Shard(0),))
    failure = _failure(lambda: load(tensors, storage_reader=ShardReader(folder)))
    if failure is not None:
        raise failure
    return tensors


def _failure(work: Callable[[], object]) -> BaseException | None:
    """Return what failed, in whichever process, where torch says it in an exception that is no Exception."""
    try:
        work()
    except CheckpointException as error:
        return next(iter(error.failures.values()))[0]
    return None


def _bytes_of(state: Any) -> int:
    sizes: list[int] = []

    def add(name: str, x: Any) -> None:
        if isinstance(x, Tensor):
            sizes.append(x.nbytes)

    _map(state, add)
    return sum(sizes)


def _shard_folders(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-*.shards"))


def _next_number(path: Path) -> int:
    """Number of the next folder of shards, one more than any there; the same for every process."""
    names = [folder.name.removeprefix(f"{path.stem}-").removesuffix(".shards") for folder in _shard_folders(path)]
    numbers = [int(name) for name in names if name.isdecimal()]
    return world().from_main(max(numbers, default=0) + 1)


def _take(shards: dict[str, DTensor], name: str, x: DTensor) -> None:
    shards[name] = x


def _map(tree: Any, change: Callable[[str, Any], Any], name: str = "") -> Any:
    """Apply `change` to every leaf of a tree of mappings and lists, each named by its path from the root."""
    if isinstance(tree, Mapping):
        return {key: _map(x, change, f"{name}/{key}") for key, x in tree.items()}
    if isinstance(tree, list):
        return [_map(x, change, f"{name}/{i}") for i, x in enumerate(tree)]
    return change(name, tree)
