"""A tiny critic and a dump for it, and a script for several processes that reads one with the other.

torchrun --nproc-per-node 2 tests/reading.py FOLDER, which has `critic`: prints the reading as JSON.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import arithmetic
import torch
from transformers import PreTrainedModel

from vcppo.diagnosis.readings import read_critic
from vcppo.diagnosis.responses import Dump, LoggedResponse
from vcppo.diagnosis.stored_values import StoredValues
from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.models.distributed import together
from vcppo.models.sharding import prepare
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.system.processes import run_as_rank

TOKENIZER = arithmetic.make_tokenizer()
TEXTS = [row["solution"] for row in arithmetic.problems(5, terms=3)]


def make_critic(folder: Path) -> Path:
    """A critic of random weights with values that tell tokens apart, in folder/critic."""
    arithmetic.make_model_folder(folder / "policy", hidden_size=16, layers=1, heads=2, kv_heads=1)
    critic = loading.load_critic(folder / "policy", head_seed=3)
    with torch.no_grad():
        forward.value_head(critic).weight.mul_(30.0)
    save_model(prepared(critic), TOKENIZER, folder / "critic")
    return folder / "critic"


def prepared(critic: PreTrainedModel) -> PreTrainedModel:
    """As a command prepares it."""
    return prepare(critic, ComputeSettings(), LoraSettings(), seed=0)


def response(number: int, **described: Any) -> LoggedResponse:
    """A sum with its solution, the odd ones wrong."""
    given: dict[str, Any] = {
        "problem": f"p{number % 2}",
        "score": float(number % 2 == 0),
        "prompt": f"{number} + 1?\n",
        "line": number,
    }
    return LoggedResponse(**given | described)


def ids_dump() -> Dump:
    """Five responses as token ids."""
    ids = [(*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id) for text in TEXTS]
    return Dump("dump.jsonl", "test", tuple(response(i, tokens=tokens) for i, tokens in enumerate(ids)))


def main(folder: Path) -> None:
    """Read the dump, with a store, in small micro-batches."""
    with together() as world:
        critic = prepared(loading.load_critic(folder / "critic"))
        store = StoredValues(folder / "out", "tiny")
        reading = read_critic(critic, TOKENIZER, ids_dump(), name="tiny", max_tokens=60, store=store)
        if world.is_main:
            print(json.dumps({"values": asdict(reading)["values"].tolist(), "size": world.size}))


if __name__ == "__main__":
    run_as_rank(lambda: main(Path(sys.argv[1])))
