"""Bytes alive in a training pass of a model of given shapes, rank 0 of N processes; cases as JSON in and out.

    echo '[{"shapes": "qwen2.5-0.5b", "critic": false, "processes": 8, "tokens": 4096}]' \\
        | python tests/measure_memory.py

The model is the real one, prepared as in training (shards, mixed precision, checkpointing, adapters), run by the real
scorers; tensors are fake and collectives do nothing. Gradients stand ready, as in the second of several passes.
"""

import dataclasses
import gc
import json
import os
import sys
import warnings
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from live_bytes import LiveBytes
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, masking_utils

from bench.gpu.sizes import config_of
from vcppo.models import distributed, sharding
from vcppo.models.forward import SCORERS
from vcppo.planning.shapes import KNOWN, Shapes
from vcppo.settings.model import ComputeSettings, LoraSettings

PROMPT = 64


def model_of(shapes: Shapes, critic: bool, longest: int) -> Any:
    """A transformers model of these shapes; weights as the mode of the caller makes them."""
    config = config_of(shapes, critic=critic, longest=longest)
    return (AutoModelForTokenClassification if critic else AutoModelForCausalLM).from_config(config).eval()


def measure(
    *,
    shapes: str,
    critic: bool,
    processes: int,
    tokens: int,
    rows: int = 1,
    layers: int | None = None,
    compute: dict[str, Any] | None = None,
    lora: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Bytes: `weights` after preparing, `steady` with gradients, `peak` of the pass, `read` of one without gradient,
    `stepped` after an optimiser step, and the `largest` single tensor of the pass."""
    told = KNOWN[shapes]
    told = dataclasses.replace(told, layers=layers or told.layers)
    settings = ComputeSettings(**(compute or {}))
    os.environ.update(WORLD_SIZE=str(processes), RANK="0")
    store = FakeStore()
    distributed._begin = lambda: dist.init_process_group("fake", store=store, rank=0, world_size=processes)
    sharding._scatter_from_main = lambda model, loaded, compute: None  # nothing to spread
    distributed.world()
    distributed.mesh(settings.replicas)  # not from fake tensors
    stay = patch.object(torch.nn.Module, "to", lambda module, *where, **more: module)  # fake tensors cannot be swapped
    rows_are_responses = patch.object(masking_utils, "find_packed_sequence_indices", lambda places: None)
    with distributed.together(), stay, rows_are_responses, FakeTensorMode(), LiveBytes() as count:
        model = model_of(told, critic, tokens // rows)
        model = sharding.prepare(model, settings, LoraSettings(**(lora or {})), seed=0)
        gc.collect()
        found = {"weights": count.live}
        learning = [p for p in model.parameters() if p.requires_grad]
        for parameter in learning:
            parameter.grad = torch.zeros_like(parameter)
        found["steady"] = count.live
        ids = torch.zeros((rows, tokens // rows), dtype=torch.int64)
        before = torch.arange(tokens).view(rows, -1)[:, PROMPT - 1 : -1].flatten()
        inputs: tuple[Any, ...] = (ids, None, before)
        if not critic:
            inputs = (*inputs, torch.zeros(len(before), dtype=torch.int64), 1.0, settings.logit_cells)
        name = "critic_values" if critic else "policy_scores"
        score = getattr(model, name, None) or SCORERS[name].__get__(model)
        count.restart()
        scores = score(*inputs)
        (scores if critic else scores[0].add(scores[1])).sum().backward()
        found |= {"peak": count.peak, "largest": count.largest}
        del scores
        count.restart()
        with torch.no_grad():
            score(*inputs)
        found["read"] = count.peak
        gc.collect()
        optimiser = torch.optim.AdamW(learning, fused=True)
        optimiser.step()
        found["stepped"] = count.live
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for case in json.load(sys.stdin):
        print(json.dumps(measure(**case)), flush=True)
