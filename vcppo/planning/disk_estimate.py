"""Disk that a run's stages take, before it is started: files that stay, and what a stage needs beside them to run.

Models lie there in float32 whatever passes are computed in, adapters merged; a state to resume from is a model with
AdamW's two moments of the weights that learn. What MLflow stores, logs and exports are not in it, nor what a killed
process leaves until the next one of its stage begins.

The fullest moment of a stage follows from the order in which it writes and removes (`_Files`), that of a study from
what cannot be there yet while a stage runs (`together`).
"""

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcppo.planning.lengths import lengths_of
from vcppo.planning.memory_estimate import MOMENTS, WIDE, Network
from vcppo.planning.shapes import critic_shapes_of, shapes_of
from vcppo.planning.writing import held_out_problems
from vcppo.settings.fixed import RESPONSES_AT_ONCE
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import CachedStage, is_complete, keys_of

TOKENIZER = 75  # bytes of tokenizer.json for each token: 11 MB at 152 k
RESPONSE_PLACE = 8 + 1 + 4  # of a stored response: id, mask, log-probability
SAMPLED_PLACE = 16  # of a response that waits for others to be sampled: id, log-probability, text, in Python's objects
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


@dataclass(frozen=True)
class StudyDisk:
    """Bytes still to be written by runs that share stages."""

    stays: int  # bytes when all has ended
    fullest: int  # bytes at the fullest moment, should it come for all workers at once


Known = dict[tuple[str, str, object], StageDisk]  # by stage, address, and which critic is wanted


def estimate_disk(
    settings: RunSettings,
    out: Path | None = None,
    known: Known | None = None,
    keys: Mapping[str, str] | None = None,
) -> list[StageDisk]:
    """Return the disk that the stages of a run take, in order; of those in the cache of `out` too.

    Args:
        known: stages of other runs, which are not looked at again; those of this one are added.
        keys: those of the run's addresses by their stages, where they have been made already.
    Raises:
        ConfigError: the model's shapes are unknown.
        CheckpointError: its configuration cannot be read.
    """
    known, disks = {} if known is None else known, []
    chosen, files = settings.pretrain, functools.cache(lambda: _Files(settings))
    for stage, address in (keys_of(settings) if keys is None else keys).items():
        pretrains = stage == "value-pretraining"
        critic = (chosen.steps, chosen.patience, chosen.min_delta, chosen.checkpoints) if pretrains else None
        key = (stage, address, critic)
        if key not in known:
            parts, running = files().of(stage)
            cached = out is not None and is_complete(CachedStage(out, stage, address), settings)
            known[key] = StageDisk(stage, address, cached, {**parts, "small files": DESCRIPTION}, running)
        disks.append(known[key])
    return disks


_Stage = tuple[str, str, frozenset[str]]  # stage, address, and the parts that are wanted of it
_Part = tuple[str, str, str]  # stage, address, name


def together(runs: Iterable[Sequence[StageDisk]], workers: int) -> StudyDisk:
    """Add up what runs have still to write, each shared stage once.

    A stage begins when those before it in its run have ended. So while one runs, nothing is there of the stages that
    every run which wants them has after it: the states of a value pretraining lie beside no result of the RL that
    starts from its critic. Each worker is taken to be at the stage at which most lies there, all at their fullest
    moments together; of two stages that one run has one after the other only one counts, for they never run together.

    Args:
        runs: stages of each, in their order.
        workers: stages that run at the same time.
    """
    sizes: dict[_Part, int] = {}
    running: dict[_Stage, int] = {}
    before: dict[_Part | _Stage, set[_Stage]] = {}  # what has ended whenever a part, or a stage, is there
    there: set[_Part] = set()
    for run in runs:
        ended: list[_Stage] = []
        for disk in run:
            parts = {(disk.stage, disk.address, name): size for name, size in disk.parts.items()}
            if disk.cached:
                there |= parts.keys()
                continue
            this = (disk.stage, disk.address, frozenset(disk.parts))
            keys: list[_Part | _Stage] = [this, *parts]
            for key in keys:
                before[key] = before[key].intersection(ended) if key in before else set(ended)
            sizes |= parts
            running[this] = disk.running
            ended.append(this)
    sizes = {part: size for part, size in sizes.items() if part not in there}
    later: dict[_Stage, int] = defaultdict(int)  # bytes that are not there while a stage runs
    for part, size in sizes.items():
        for stage in before[part]:
            later[stage] += size
    at_work: set[_Stage] = set()
    for this in sorted(running, key=lambda stage: running[stage] - later[stage], reverse=True):
        if len(at_work) == workers or running[this] <= later[this]:
            break
        if not any(this[:2] == other[:2] or this in before[other] or other in before[this] for other in at_work):
            at_work.add(this)
    stays = sum(sizes.values())
    not_yet = sum(size for part, size in sizes.items() if before[part] & at_work)
    return StudyDisk(stays, stays - not_yet + sum(running[stage] for stage in at_work))


class _Files:
    """Bytes of the files of each stage.

    A stage saves its state after updates or iterations, by their number or by the clock, so perhaps after each. A state
    is written whole beside the one that it replaces, and the last one goes when the stage has ended: after its results
    were written. So there are two moments that can be the fullest: two states and no result, or one state and all
    results. With one iteration there is never a second state.

    Value pretraining saves a critic with its state at every measurement, and a state by the clock between two of them.
    At the fullest moment, as the last critic has been written, there are also the critic before it with its state, and
    the state between the two; they go next.
    """

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
            policy, steps = _model(self.policy), s.cold_start.steps
            return {"policy": policy, "journal": 20 * steps}, _beside(policy, _state(self.policy), steps)
        if stage == "reward-model":
            critic, steps = _model(self.critic), s.reward_model.steps
            return {"critic": critic, "journal": 200 * steps}, _beside(critic, _state(self.critic), steps)
        if stage == "forecast":
            return {}, 0
        if stage in ("answers", "forecast-answers"):
            return self._responses(sum(s.fixed_responses) if stage == "answers" else s.record.forecast_responses)
        if stage == "value-pretraining":
            return self._value_pretraining()
        if stage == "preference":
            return _Files(preference_settings(s)).of("rl")
        if stage == "rl":
            return self._rl()
        samples = held_out_problems(s) * s.evaluation.samples
        return {"samples": samples * (SAMPLE + TEXT * self.written)}, 0

    def _responses(self, rows: int) -> tuple[dict[str, int], int]:
        """Responses that are sampled some at a time: those that are there wait in a state until all are."""
        responses = rows * (8 * self.prompt + RESPONSE_PLACE * self.longest)
        times = -(-rows // RESPONSES_AT_ONCE)
        waiting = SAMPLED_PLACE * (rows - RESPONSES_AT_ONCE) * (self.prompt + self.longest)
        return {"responses": responses}, _beside(responses, max(waiting, 0), times - 1)

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
        before = state + model * (chosen.checkpoints != "measured") if steps > chosen.evaluate_every else 0
        between = state if min(steps, chosen.evaluate_every) > 1 else 0
        return parts, before + between

    def _rl(self) -> tuple[dict[str, int], int]:
        s = self.settings
        models = [self.policy] + [self.critic] * s.has_value_model
        kept_fixed = s.needs_reference + (s.rollout.refresh_every != 1)
        state = sum(map(_state, models)) + kept_fixed * WIDE * self.policy.weights
        if s.has_value_model and s.critic.update_every == "never":
            state -= MOMENTS * self.critic.learning
        parts = {"critic" if net.critic else "policy": _model(net) for net in models}
        return {**parts, "journal": ITERATION * s.steps}, _beside(sum(parts.values()), state, s.steps)


def _beside(results: int, state: int, saves: int) -> int:
    """Bytes beside a stage's results at its fullest moment: a state, or two without the results; of so many at most.

    >>> _beside(results=1, state=3, saves=1), _beside(results=1, state=3, saves=2), _beside(results=4, state=3, saves=2)
    (3, 5, 3)
    """
    return max(min(saves, 2) * state - results, state if saves else 0)


def _model(net: Network) -> int:
    """Bytes of a model's folder."""
    return WIDE * (net.weights - net.adapters) + TOKENIZER * net.shapes.vocabulary


def _state(net: Network) -> int:
    """Bytes of a state to resume from."""
    return WIDE * net.weights + MOMENTS * net.learning
