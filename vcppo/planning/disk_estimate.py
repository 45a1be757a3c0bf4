"""Disk that a run's stages take, before it is started: files that stay, and what a stage needs beside them to run.

Models lie there in float32 whatever passes are computed in, adapters merged; a state to resume from is a model with
AdamW's two moments of the weights that learn, and a second one while it replaces the first. What MLflow stores, logs
and exports are not in it.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vcppo.planning.lengths import lengths_of
from vcppo.planning.memory_estimate import MOMENTS, WIDE, Network
from vcppo.planning.shapes import critic_shapes_of, shapes_of
from vcppo.planning.writing import held_out_problems
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder, addresses, is_complete

TOKENIZER = 75  # bytes of tokenizer.json for each token: 11 MB at 152 k
RESPONSE_PLACE = 8 + 1 + 4  # of a stored response: id, mask, log-probability
TEXT = 3  # bytes of text for each token of a stored sample
SAMPLE = 200  # bytes of a stored sample beside its text
ITERATION = 2200  # bytes of a journal for each iteration of RL, tables included
DESCRIPTION = 5000  # bytes of the small files of a stage


@dataclass(frozen=True)
class StageDisk:
    """One stage's files. Two runs that share an address share the parts of the same name."""

    stage: str
    address: str
    cached: bool
    parts: Mapping[str, int]  # bytes of what stays, by a name
    running: int  # bytes beside those at the fullest moment, gone when the stage has ended

    @property
    def stays(self) -> int:
        """Bytes when the stage has ended."""
        return sum(self.parts.values())

    @property
    def fullest(self) -> int:
        """Bytes at its fullest moment."""
        return self.stays + self.running

    def with_parts_of(self, other: "StageDisk") -> "StageDisk":
        """The stage as two runs want it; what one of them has still to compute is not cached."""
        cached, running = self.cached and other.cached, max(self.running, other.running)
        return StageDisk(self.stage, self.address, cached, {**self.parts, **other.parts}, running)


@dataclass(frozen=True)
class StudyDisk:
    """Bytes still to be written by runs that share stages."""

    stays: int  # bytes when all has ended
    fullest: int  # bytes at the fullest moment, if the largest stages run last and together


Known = dict[tuple[str, str, object], StageDisk]  # by stage, address, and which critic is wanted


def estimate_disk(settings: RunSettings, out: Path | None = None, known: Known | None = None) -> list[StageDisk]:
    """Return the disk that the stages of a run take, in order; of those in the cache of `out` too.

    Args:
        known: stages of other runs, which are not looked at again; those of this one are added.
    Raises:
        ConfigError: the model's shapes are unknown.
        CheckpointError: its configuration cannot be read.
    """
    known, disks = {} if known is None else known, []
    chosen, files = settings.pretrain, functools.cache(lambda: _Files(settings))
    for stage, address in addresses(settings).items():
        pretrains = stage == "value-pretraining"
        critic = (chosen.steps, chosen.patience, chosen.min_delta, chosen.checkpoints) if pretrains else None
        key = (stage, address.key, critic)
        if key not in known:
            parts, running = files().of(stage)
            cached = out is not None and is_complete(StageFolder(out, address), settings)
            known[key] = StageDisk(stage, address.key, cached, {**parts, "small files": DESCRIPTION}, running)
        disks.append(known[key])
    return disks


def together(disks: Iterable[StageDisk], workers: int) -> StudyDisk:
    """Add up what is not in the cache, each shared stage once.

    Args:
        workers: stages that run at the same time.
    """
    by_address: dict[str, StageDisk] = {}
    for disk in disks:
        key = f"{disk.stage}/{disk.address}"
        by_address[key] = by_address[key].with_parts_of(disk) if key in by_address else disk
    missing = [disk for disk in by_address.values() if not disk.cached]
    stays = sum(disk.stays for disk in missing)
    return StudyDisk(stays, stays + sum(sorted((disk.running for disk in missing), reverse=True)[:workers]))


class _Files:
    """Bytes of the files of each stage."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.policy, self.critic = self._network(critic=False), self._network(critic=True)
        lengths = lengths_of(settings)
        self.prompt, self.written, self.longest = lengths.prompt, lengths.written, lengths.limit

    def _network(self, *, critic: bool) -> Network:
        settings = self.settings
        shapes = critic_shapes_of(settings) if critic else shapes_of(settings)
        return Network(shapes, critic, settings.compute, settings.lora, shards=1)

    def of(self, stage: str) -> tuple[dict[str, int], int]:
        """Return (bytes of what stays by name, bytes beside it while the stage runs)."""
        s = self.settings
        if stage == "cold-start":
            if s.cold_start.steps == 0:
                return {}, 0
            return {"policy": _model(self.policy), "journal": 20 * s.cold_start.steps}, 2 * _state(self.policy)
        if stage == "reward-model":
            return {"critic": _model(self.critic), "journal": 200 * s.reward_model.steps}, 2 * _state(self.critic)
        if stage == "forecast":
            return {}, 0
        if stage in ("answers", "forecast-answers"):
            rows = sum(s.fixed_responses) if stage == "answers" else s.record.forecast_responses
            return {"responses": rows * (8 * self.prompt + RESPONSE_PLACE * self.longest)}, 0
        if stage == "value-pretraining":
            return self._value_pretraining()
        if stage == "preference":
            return _Files(preference_settings(s)).of("rl")
        if stage == "rl":
            return self._rl()
        samples = held_out_problems(s) * s.evaluation.samples
        return {"samples": samples * (SAMPLE + TEXT * self.written)}, 0

    def _value_pretraining(self) -> tuple[dict[str, int], int]:
        chosen, model, state = self.settings.pretrain, _model(self.critic), _state(self.critic)
        parts = {"moments of the last critic": state}
        if chosen.steps == "converge":
            best = f"critic of patience {chosen.patience}, min_delta {chosen.min_delta}"
            parts |= {best: model, "last critic": model}
            steps = chosen.max_steps
        else:
            parts[f"critic of {chosen.steps}"] = model
            steps = chosen.steps
        if chosen.checkpoints == "measured":
            parts |= {f"critic of {step}": model for step in range(0, steps + 1, chosen.evaluate_every) if step}
        parts["journal"] = 400 * steps
        return parts, 2 * (model + state)  # one state between two critics, by time, while another is written

    def _rl(self) -> tuple[dict[str, int], int]:
        s = self.settings
        learners = [self.policy] + [self.critic] * s.has_value_model
        kept_fixed = s.needs_reference + (s.rollout.refresh_every != 1)
        state = sum(map(_state, learners)) + kept_fixed * WIDE * self.policy.weights
        parts = {"critic" if net.critic else "policy": _model(net) for net in learners}
        return {**parts, "journal": ITERATION * s.steps}, 2 * state


def _model(net: Network) -> int:
    """Bytes of a model's folder."""
    return WIDE * (net.weights - net.adapters) + TOKENIZER * net.shapes.vocabulary


def _state(net: Network) -> int:
    """Bytes of a state to resume from."""
    return WIDE * net.weights + MOMENTS * net.learning
