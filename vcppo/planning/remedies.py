"""What to change where a run does not fit: settings that make its fullest phase smaller, or more GPUs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vcppo.errors import ConfigError
from vcppo.planning.lengths import lengths_of
from vcppo.planning.memory_estimate import GIB
from vcppo.planning.plan import Gpus, Plan, make_plan
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings


@dataclass(frozen=True)
class Remedy:
    """Settings that would make the fullest phase smaller."""

    settings: Mapping[str, Any]
    saves: float  # bytes of the fullest phase, as it stands, to the fullest of the changed plan
    fits: bool


def remedies(settings: RunSettings, machine: Gpus) -> list[Remedy]:
    """Return changes that leave what is learnt as it is, or nearly, and what each would save; the largest first.

    The last is all of those but the adapters together, where none suffices alone.
    """
    before = make_plan(settings, machine)
    candidates: list[Remedy] = []
    together: dict[str, Any] = {}
    for change in _changes(settings, machine):
        remedy = _remedy(settings, machine, before, change)
        if remedy is not None and remedy.saves > 0.01 * GIB:
            candidates.append(remedy)
            if "lora.rank" not in change and "engine.kind" not in change:
                together |= change
    candidates.sort(key=lambda remedy: remedy.saves, reverse=True)
    if len(together) > 1 and not any(remedy.fits for remedy in candidates):
        joined = _remedy(settings, machine, before, together)
        candidates += [joined] if joined is not None else []
    return candidates


def gpus_needed(settings: RunSettings, machine: Gpus, most: int = 4096) -> int | None:
    """Return the least power of two times `compute.replicas` of such GPUs that it fits, None if `most` are too few."""
    gpus = settings.compute.replicas
    while gpus <= most:
        if make_plan(settings, Gpus(gpus, machine.memory)).fits:
            return gpus
        gpus *= 2
    return None


def _remedy(settings: RunSettings, machine: Gpus, before: Plan, change: Mapping[str, Any]) -> Remedy | None:
    try:
        after = make_plan(override(settings, change, source="remedy"), machine)
    except ConfigError:  # a change that does not go with the other settings is none
        return None
    return Remedy(change, before.fullest.memory.total - after.fullest.memory.total, after.fits)


def _changes(settings: RunSettings, machine: Gpus) -> Iterator[dict[str, Any]]:
    compute, longest = settings.compute, lengths_of(settings).longest
    if compute.dtype != "bfloat16":
        yield {"compute.dtype": "bfloat16"}
    if not compute.gradient_checkpointing:
        yield {"compute.gradient_checkpointing": True}
    if not compute.offload and machine.gpus:
        yield {"compute.offload": True}
    if settings.micro_batch_tokens > longest:
        yield {"micro_batch_tokens": longest}
    if compute.logit_cells > 2**24:
        yield {"compute.logit_cells": 2**24}
    if compute.replicas > 1:
        yield {"compute.replicas": 1}
    if settings.lora.rank == 0:
        yield {"lora.rank": 32}
    if settings.engine.kind == "torch" and machine.gpus:
        yield {"engine.kind": "vllm"}
