"""Saving models for others and states for ourselves, whole or not at all."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo.cache import whole_folder
from vcppo.errors import CheckpointError


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """A transformers folder: config, safetensors, tokenizer; anyone can load it without us."""
    with whole_folder(path) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Tensors and numbers that a stage resumes from; replaced in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def load_state(path: Path) -> dict[str, Any] | None:
    """The state saved there, None if there is none.

    Raises:
        CheckpointError: the file is not a state, for example cut short by a full disk.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: not a readable state ({type(error).__name__}); delete it to begin the stage anew"
        ) from None
    return state
