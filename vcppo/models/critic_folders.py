"""Find a saved critic: the folder in transformers format in a trainer's checkpoint, and that of its tokenizer.

Nothing here is unpickled. Shards (`.pt`, `.distcp`) hold arbitrary objects, and torch's restricted unpickler, which
would read a `.bin` of plain tensors, has let code through before (CVE-2025-32434): where weights are not safetensors,
one line names what turns them into such.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vcppo.errors import CheckpointError
from vcppo.system.files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DIRECTORIES = (
    "critic",  # of verl's global_step_N
    "huggingface",  # of a critic there, if `hf_model` is among `checkpoint.save_contents`
    "merged",  # where `merge_command` puts it
    "value",  # of NeMo-RL's step_N, then
    "weights",
    "model",
    "consolidated",
)


@dataclass(frozen=True)
class CriticFolder:
    """A critic that transformers can open."""

    weights: Path | str  # a folder with config.json and safetensors, or a hub's name
    tokenizer: Path | str


def find_folder(path: Path | str) -> CriticFolder:
    """Find the transformers folder of a critic in the folder of a trainer's checkpoint; a hub's name stays as it is.

    - verl writes `global_step_N/critic/model_world_size_W_rank_K.pt` beside `huggingface/`, which holds configuration
      and tokenizer, and weights if asked for (v0.7.0, verl/utils/checkpoint/fsdp_checkpoint_manager.py; with Megatron
      `dist_ckpt/`). Its merger's output is looked for in `merged/`.
    - NeMo-RL writes `step_N/value/weights/model/`, there shards or, with `checkpointing.save_consolidated`, the folder
      `consolidated/`, and `step_N/value/tokenizer/` (v0.7.0, nemo_rl/algorithms/ppo.py,
      nemo_rl/models/automodel/checkpoint.py).

    Raises:
        CheckpointError: the weights there are pickles, shards or adapters.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir() or _is_whole(folder):
        return CriticFolder(path, path)
    for below in _below(folder):
        if _is_whole(below):
            beside = below.parents[2] / "tokenizer"  # of NeMo-RL: value/weights/model/consolidated
            of_nemo = below.name == "consolidated" and beside.is_dir() and not (below / "tokenizer.json").exists()
            return CriticFolder(below, beside if of_nemo else below)
    around = [folder.parent] if folder.name == "huggingface" else []
    for place in (folder, *_below(folder), *around):
        _refuse_foreign(place, path)
    return CriticFolder(path, path)


def merge_command(shards: Path, *, megatron: bool = False) -> str:
    """Shell command of verl's merger, after which `find_folder` finds the critic."""
    backend = ["megatron", "--is-value-model"] if megatron else ["fsdp"]
    where = ["--local_dir", str(shards), "--target_dir", str(shards / "merged")]
    return shlex.join(["python", "-m", "verl.model_merger", "merge", "--backend", *backend, *where])


def convert_command(folder: Path) -> str:
    """Shell command that writes the tensors of `.bin` files, one or several, as safetensors beside them."""
    pattern, target = str(folder / "pytorch_model*.bin"), str(folder / WEIGHTS)
    code = (
        "import glob, torch; from safetensors.torch import save_file; save_file({n: t.clone().contiguous() for f in "
        f"glob.glob({pattern!r}) for n, t in torch.load(f, weights_only=True).items()}}, {target!r}, "
        "metadata={'format': 'pt'})"
    )
    return shlex.join(["python", "-c", code])


def saved_file(source: Path | str, name: str) -> Path | None:
    """A file of a folder, or of a hub's model, which is downloaded if need be; None if there is none."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils import cached_file

    try:
        result = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):
        return None
    return None if result is None else Path(result)


def weight_files(source: Path | str) -> dict[str, Path]:
    """Name of each weight that transformers will look for, and the file it is in; empty if there are no safetensors.

    Raises:
        CheckpointError: a header or the index cannot be read.
    """
    if (one := saved_file(source, WEIGHTS)) is not None:
        return dict.fromkeys(weight_names(one), one)
    if (index := saved_file(source, INDEX)) is None:
        return {}
    table: Any = read_json(index)
    try:
        return {str(name): index.with_name(file) for name, file in table["weight_map"].items()}
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: no weight_map there, expected the index of safetensors files") from None


def weight_names(file: Path) -> list[str]:
    """Names in a safetensors file, by its header alone. Raises CheckpointError if it is none."""
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: not a safetensors file ({str(error).splitlines()[0]})") from None


def _is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in (WEIGHTS, INDEX))


def _below(folder: Path) -> list[Path]:
    """Folders within, as trainers nest them, the outermost first."""
    result = [folder]
    for place in result:
        result += [place / name for name in DIRECTORIES if (place / name).is_dir()]
    return result[1:]


def _refuse_foreign(folder: Path, path: Path | str) -> None:
    """Raise if a folder holds a checkpoint that must be merged or converted first."""
    if any(folder.glob("model_world_size_*_rank_*.pt")):
        raise CheckpointError(
            f"{path}: FSDP shards of verl, which are pickles; expected safetensors: {merge_command(folder)}"
        )
    if (folder / "dist_ckpt").is_dir():
        command = merge_command(folder, megatron=True)
        raise CheckpointError(f"{path}: Megatron shards of verl; expected safetensors: {command}")
    if (folder / "model" / ".metadata").is_file() or any((folder / "model").glob("shard-*.safetensors")):
        raise CheckpointError(
            f"{path}: shards of NeMo-RL; expected the folder {folder / 'model' / 'consolidated'}, which it writes with "
            "checkpointing.model_save_format=safetensors checkpointing.save_consolidated=true"
        )
    if any(folder.glob("*/mp_rank_*_model_states.pt")):
        raise CheckpointError(
            f"{path}: a state of DeepSpeed, which is pickles; expected a transformers folder, which OpenRLHF writes "
            "with --critic.save_value_network (before 0.10.2 --save_value_network)"
        )
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path}: adapters without the model that they adapt; expected whole weights, as peft's "
            "merge_and_unload() and save_pretrained() write them"
        )
    if any(folder.glob("pytorch_model*.bin")):
        raise CheckpointError(
            f"{path}: its weights are a pickle (.bin), which is not read; expected safetensors: "
            f"{convert_command(folder)}"
        )
