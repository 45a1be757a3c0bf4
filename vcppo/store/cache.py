"""Results by address: a stage is run once for its settings and its parents, however many runs need it.

An address is a hash of (stage, version of its code, the settings that matter to it, its parents' addresses), so all
addresses of a run follow from its settings alone, before anything is computed.
"""

import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.errors import CheckpointError, DataError
from vcppo.settings.critic_size import CRITIC_SIZE
from vcppo.settings.digests import digest
from vcppo.settings.engine import EngineSettings
from vcppo.settings.preference import preference_settings
from vcppo.settings.renamed import RENAMED, with_hashed_names
from vcppo.settings.rollout import RolloutSettings
from vcppo.settings.rules import bootstraps
from vcppo.settings.run import RunSettings
from vcppo.store.journal import Journal
from vcppo.store.manifest import DONE, JOURNAL, NAME, faults, record_files
from vcppo.store.pretrained_critics import REQUESTS, chosen_step, critic_folder, pretraining_is_done
from vcppo.store.stage_lock import stage_lock
from vcppo.system import disk
from vcppo.system.files import (
    is_locked,
    json_bytes,
    make_folder,
    read_json,
    read_json_or_move,
    write_bytes,
    write_json,
)
from vcppo.system.fingerprints import content_of
from vcppo.system.processes import is_main
from vcppo.system.provenance import provenance
from vcppo.system.temporaries import sweep
from vcppo.tasks.problems import task_address

# Raised by one when a change of the stage's code changes its numbers; results of older versions stay in the cache.
# tests/golden/stages.json holds the numbers of each version, and a test fails when one was forgotten.
VERSIONS = {
    "cold-start": 1,
    "reward-model": 2,
    "preference": 2,
    "answers": 2,
    "value-pretraining": 3,
    "forecast-answers": 1,
    "forecast": 1,
    "rl": 3,
    "evaluation": 1,
}

# The same for how the model of model.path is read: from 2 on its tokenizer's end of sequence is among the tokens that
# end a response, which stays within its positions.
GIVEN_MODEL = 2

STOP_RULE = 2  # of `pretrain.steps = converge`: which critic of a pretraining it takes
NO_STOP_RULE = {"patience": 2, "tolerance": 0.01}  # what addresses have said where a number of steps ignores it

# What a forecast of the first iteration depends on: what makes advantages, and nothing of what learns from them.
FORECAST = [
    *("seed", "task", "rollout", "reward", "token_reward", "select", "vine", "gae", "advantage", "kl", "critic"),
    "micro_batch_tokens",
]
FORECAST_SAMPLING = {"rollout": {"prompts", "refresh_every"}}

BLIND_TO = "own values"  # what an exact critic of little sight has instead: means that hold none of a response's own

VERDICTS = ("correct", "wrong", "unreadable")  # settings of the reward for each verdict, before any shaping


@dataclass(frozen=True)
class Address:
    """Address of a stage's result: all that it depends on. Nothing in it changes, so its key is made once."""

    stage: str
    settings: dict[str, Any]
    parents: dict[str, str]

    @functools.cached_property
    def key(self) -> str:
        """Digest of the address, 12 hex digits."""
        return digest([self.stage, VERSIONS[self.stage], self.settings, self.parents])


def addresses(settings: RunSettings) -> dict[str, Address]:
    """Return the addresses of a run's stages, in order; stages that its settings leave out are absent."""
    everything = with_hashed_names(settings.model_dump(mode="json")) | {"task": task_address(settings.task)}
    for section in ("model", "critic"):
        everything[section]["path"] = content_of(everything[section]["path"])
    if settings.model.path is not None:
        everything["model"]["version"] = GIVEN_MODEL
    if settings.critic.init == "exact" and settings.critic.sight < 1:
        everything["critic"]["blind_to"] = BLIND_TO
    if settings.base_seed:  # base 0 draws as it did when all bases of a seed drew alike, and has the addresses of then
        everything["seed"] = [settings.seed, settings.base_seed]

    def address(
        stage: str,
        names: Sequence[str],
        parents: Sequence[str],
        without: Mapping[str, set[str]] | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        chosen = {name: everything[name] for name in names}
        if "micro_batch_tokens" in chosen:  # the stage trains
            chosen["dtype"], chosen["lora"] = everything["compute"]["dtype"], everything["lora"]
        if stage != "cold-start":  # it samples, or a parent did
            chosen["engine"] = engine_address(settings.engine)
        for section, left_out in (without or {}).items():
            chosen[section] = {k: v for k, v in chosen[section].items() if k not in left_out}
        keys = {parent: by_stage[parent].key for parent in parents if parent in by_stage}
        by_stage[stage] = Address(stage, {**chosen, **(also or {})}, keys)

    by_stage: dict[str, Address] = {}
    speed_only = {"evaluation": {RENAMED["evaluation.responses_at_once"].split(".")[1]}}
    pretrains = settings.pretrains
    address(
        "cold-start",
        ["base_seed", "task", "model", "cold_start", "micro_batch_tokens"],
        [],
        {"model": {"trust_remote_code"}},
        also=_untrained() if settings.model.path is not None and settings.cold_start.steps == 0 else None,
    )
    if settings.has_critic and settings.critic.init == "reward-model":
        sampling, before = settings.rollout.sampling, RolloutSettings().sampling  # which has the address of before
        names = ["base_seed", "task", "reward_model", "micro_batch_tokens"]
        address("reward-model", names, ["cold-start"], also={"rollout": sampling} if sampling != before else None)
    if settings.token_reward.kind != "none":
        of_dpo = addresses(preference_settings(settings))["rl"]
        by_stage["preference"] = Address("preference", of_dpo.settings, of_dpo.parents)
    sampled = {"rollout": {"prompts", "samples_per_prompt", "refresh_every"}}
    pool, held_out = settings.fixed_responses
    verdicts = {name: everything["reward"][name] for name in VERDICTS}
    if held_out:
        also: dict[str, Any] = {"reward": verdicts, "pool": [pool, held_out]}
        if pretrains and settings.pretrain.held_out_prompts != "shared":
            also["held_out_prompts"] = settings.pretrain.held_out_prompts
        address("answers", ["seed", "task", "rollout", "reward"], ["cold-start"], sampled, also)
    if pretrains:
        critic = {
            **{name: everything["critic"][name] for name in ("init", "path", "initial_value", "bounded")},
            **{name: everything["critic"][name] for name in ("scores", *CRITIC_SIZE) if name in everything["critic"]},
            "aggregation": settings.critic.aggregation,
            "gamma": settings.gae.gamma,
        }
        targets = {
            "cut_answers": not (bootstraps(settings) or settings.select.drop_truncated),
            "token_reward": everything["token_reward"] if settings.token_reward.kind != "none" else None,
        }
        address(
            "value-pretraining",
            ["seed", "task", "rollout", "reward", "pretrain", "micro_batch_tokens"],
            ["cold-start", "reward-model", "preference", "answers"],
            sampled | {"pretrain": {"steps", "patience", "tolerance", "checkpoints"}},
            {"critic": critic, "targets": targets},
        )
    before_rl = ["cold-start", "reward-model", "preference", "value-pretraining" if pretrains else "answers"]
    pretrained = {"pretrained": _pretrained(everything["pretrain"])} if pretrains else None
    if settings.forecasts:
        also = {"reward": verdicts, "responses": settings.record.forecast_responses}
        names = ["base_seed", "task", "rollout", "reward"]
        address("forecast-answers", names, ["cold-start"], FORECAST_SAMPLING, also)
        address("forecast", FORECAST, [*before_rl, "forecast-answers"], {"gae": {"lambda_critic"}}, pretrained)
    excluded = {"arm", "method", "base_seed", "model", "cold_start", "reward_model", "pretrain"}  # of earlier stages
    excluded |= {"compute", "lora", "engine"}  # `address` adds what changes numbers
    address(
        "rl",
        [name for name in everything if name not in excluded],
        before_rl,
        speed_only | {"record": {"checkpoint_every_s", "forecast_responses"}},
        pretrained,
    )
    address("evaluation", ["task", "evaluation", "rollout"], ["rl"], speed_only)
    return by_stage


def keys_of(settings: RunSettings) -> dict[str, str]:
    """Return the keys of a run's addresses, by stage, in order."""
    return {stage: address.key for stage, address in addresses(settings).items()}


def _pretrained(pretrain: Mapping[str, Any]) -> dict[str, Any]:
    """Return which critic of a pretraining RL starts from."""
    chosen = {k: pretrain[k] for k in ("steps", "max_steps")}
    if chosen["steps"] == "converge":
        return {**chosen, **{k: pretrain[k] for k in ("patience", "tolerance")}, "rule": STOP_RULE}
    return {**chosen, **NO_STOP_RULE}


def engine_address(engine: EngineSettings) -> str | dict[str, Any]:
    """Return what addresses say of the engine: its kind, and what changes responses where it is not at its default."""
    fields = type(engine).model_fields
    given = [
        name for name in ("dtype", "max_length") if name in fields and getattr(engine, name) != fields[name].default
    ]
    return {name: getattr(engine, name) for name in ("kind", *given)} if given else engine.kind


@functools.cache
def _untrained() -> dict[str, Any]:
    """Settings of training in the address of a cold start of no steps: the same, however later stages train.

    It is what the defaults beside a given model say, whose addresses are as they have been.
    """
    tree = RunSettings.model_validate({"model": {"path": "any"}, "cold_start": {"steps": 0}}).model_dump(mode="json")
    trained = with_hashed_names(tree)
    return {
        "cold_start": trained["cold_start"],
        "micro_batch_tokens": trained["micro_batch_tokens"],
        "dtype": trained["compute"]["dtype"],
        "lora": trained["lora"],
    }


class CachedStage:
    """A stage's folder to be read, by the stage's name and the key of its address."""

    def __init__(self, out: Path, stage: str, key: str) -> None:
        self.stage = stage
        self.path = out / "cache" / stage / key

    @property
    def result(self) -> dict[str, float] | None:
        """Result of the finished stage, None before that."""
        done = self.path / DONE
        if not done.exists():
            return None
        try:
            result: dict[str, float] = read_json(done)["result"]
        except (CheckpointError, KeyError, TypeError):  # of no bytes, after a power cut
            return None
        return result

    @property
    def was_left(self) -> bool:
        """True if `done.json` is missing and nobody is at work, though a requested critic may be there."""
        return self.result is None and not is_locked(self.path / "lock")


class StageFolder(CachedStage):
    """The folder of one address: a journal, a state to resume from, results and their manifest, `done.json` at last."""

    def __init__(self, out: Path, address: Address) -> None:
        super().__init__(out, address.stage, address.key)
        self.address = address

    @property
    def journal(self) -> Journal:
        """The stage's journal, opened for appending; only the main process writes it."""
        return Journal(self.path / JOURNAL, silent=not is_main())

    @contextmanager
    def lock(self, cell: str = "", on_wait: Callable[[str], object] = lambda holder: None) -> Iterator[None]:
        """Lock the address: another process that wants it waits here; the lock of a dead process is released.

        What a killed holder was writing is removed. Of processes that work together the main one locks it for all.

        Args:
            cell: as STUDY/CELL, which the stage is computed for; others who wait learn it.
            on_wait: receives who holds it and why, where it has to be waited for.
        Raises:
            DiskError: the folder is read only, or another user's.
        """
        if not is_main():
            yield
            return
        with ExitStack() as stack:
            with disk.writing(self.path):
                make_folder(self.path)
                stack.enter_context(stage_lock(self.path, cell, on_wait))
            sweep(self.path, below=True, exclusive=lambda path: path.parent.name != REQUESTS)
            yield

    def describe(self, notice: Callable[[str], None] = lambda line: None) -> None:
        """Write `stage.json` once: address, settings, parents and provenance."""
        path = self.path / "stage.json"
        if read_json_or_move(path, notice) is None:
            a = self.address
            write_json(
                path,
                {
                    "stage": a.stage,
                    "address": a.key,
                    "settings": a.settings,
                    "parents": a.parents,
                    "provenance": provenance(),
                },
            )

    def record(self) -> None:
        """Renew the manifest while the stage goes on, where others may use a part of its results already.

        Raises:
            DiskError: the disk is full, or refuses.
        """
        with disk.writing(self.path):
            record_files(self.path)

    def finish(self, result: dict[str, float], wall_s: float) -> None:
        """Mark the stage complete, its files recorded, and remove the state that only resuming needs.

        Raises:
            DiskError: the disk is full, or refuses.
        """
        done = json_bytes({"result": result, "wall_s": wall_s})
        with disk.writing(self.path):
            record_files(self.path, done=done)
            write_bytes(self.path / DONE, done)
            (self.path / "state.pt").unlink(missing_ok=True)
        for shards in self.path.glob("state-*.shards"):
            shutil.rmtree(shards, ignore_errors=True)

    def move_aside(self, names: Sequence[str] | None = None) -> Path:
        """Move results that cannot be trusted to ADDRESS.bad-1, or the next number that is free; return that folder.

        Args:
            names: at the top of the folder; by default all there are, but for the lock, whose holder calls this.
        """
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.bad-{number}")).exists():
            number += 1
        make_folder(aside)
        last = {JOURNAL: 1, NAME: 2}  # stopped in between, it is seen again and goes on
        entries = [entry.name for entry in self.path.iterdir() if entry.name != "lock"] if names is None else names
        for name in sorted(entries, key=lambda name: (name != DONE, last.get(name, 0), name)):
            (self.path / name).rename(aside / name)
        return aside


def is_complete(folder: CachedStage, settings: RunSettings) -> bool:
    """True if the cache holds what these settings request of a stage, each file in the size that it had then."""
    return _is_marked_complete(folder, settings) and not _faults(folder, settings, digests=False)


def is_intact(folder: CachedStage, settings: RunSettings) -> bool:
    """True if it is complete, and each file has the bytes that it was written with; a process reads a file once."""
    return _is_marked_complete(folder, settings) and not _faults(folder, settings, digests=True)


def move_damaged_aside(folder: StageFolder, settings: RunSettings, notice: Callable[[str], None]) -> None:
    """Move what is marked complete and is not intact aside, so that it is computed again; `notice` receives a line.

    Of a value pretraining it is the one critic, if the journal is intact. The caller holds the folder's lock.
    """
    if not _is_marked_complete(folder, settings):
        return
    damage = _faults(folder, settings, digests=True)
    if not damage:
        return
    names = None
    if folder.stage == "value-pretraining" and not any(line.startswith((JOURNAL, NAME)) for line in damage):
        names = [_chosen_critic(folder, settings)]
    aside = folder.move_aside(names)
    more = f", and {len(damage) - 1} more" if len(damage) > 1 else ""
    notice(f"{folder.path}: {damage[0]}{more}; moved to {aside.name}, and computed again")


def unfinished(out: Path, settings: RunSettings) -> set[str]:
    """The stages of these settings, as stage/address, that the cache does not hold as they request them.

    A value pretraining that ended for another cell after fewer updates is one of them: it goes on at the same address.
    """
    return {
        f"{address.stage}/{address.key}"
        for address in addresses(settings).values()
        if not is_complete(StageFolder(out, address), settings)
    }


def _is_marked_complete(folder: CachedStage, settings: RunSettings) -> bool:
    if folder.stage != "value-pretraining":
        return folder.result is not None
    try:
        return pretraining_is_done(folder.path, settings.pretrain)
    except DataError:  # a line of its journal is no record: the stage that goes on cuts it there
        return False


def _faults(folder: CachedStage, settings: RunSettings, *, digests: bool) -> list[str]:
    used = None  # all of them
    if folder.stage == "value-pretraining":  # a folder of many critics, of which these settings use one
        used = [JOURNAL, _chosen_critic(folder, settings)]
    return faults(folder.path, digests=digests, of=used)


def _chosen_critic(folder: CachedStage, settings: RunSettings) -> str:
    step = chosen_step(folder.path, settings.pretrain)
    assert step is not None  # it is marked complete
    return critic_folder(folder.path, step).name
