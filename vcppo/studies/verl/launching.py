"""A study on verl before anything runs: whether verl can run its cells, and its further KEY=VALUE words."""

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcppo.errors import ConfigError, StudyError
from vcppo.settings.defaults import defaults_beside
from vcppo.settings.loading import flatten
from vcppo.settings.run import RunSettings
from vcppo.studies.cells import Cell
from vcppo.studies.study import Study
from vcppo.studies.verl.names import ACTOR, CRITIC, ROLLOUT, counterpart, our_name
from vcppo.studies.verl.overrides import Overrides, refusals
from vcppo.system.files import write_json

RUNNER = "vcppo.studies.verl.cells:run_cell"
NEEDED = {  # verl's settings without which no run of it begins, and that none of ours maps to
    "data.train_files": "the problems it trains on",
    "data.val_files": "the problems it is evaluated on",
}
DEFAULTS: Mapping[str, Any] = {  # what a run of verl needs beside the method; --verl takes precedence
    f"{ROLLOUT}.name": "vllm",
    f"{ACTOR}.use_dynamic_bsz": True,
    f"{CRITIC}.use_dynamic_bsz": True,
}
SET_BY_VCPPO = ("trainer.default_local_dir", "trainer.experiment_name", "trainer.project_name", "trainer.resume_mode")
_PLAIN = re.compile(r"[A-Za-z_./][\w./:@-]*")  # a string that Hydra reads as itself


def prepare_study(study: Study, seeds: Sequence[int], further: Sequence[str], out: Path, *, fresh: bool) -> str:
    """Check that verl can run every cell, and write its further words down; return the runner for `run_study`.

    Args:
        further: KEY=VALUE words for verl, as on its command line.
    Raises:
        ConfigError: verl is missing, cannot run a cell, or is given too little or the same twice.
        StudyError: the study has cells that ran with other words.
    """
    if not is_installed():
        raise ConfigError("--runner verl: verl is not installed beside vcppo; pip install 'vcppo[verl]'")
    check_study(study, seeds, further)
    path = launch_file(out / "studies" / study.name)
    launch = {"verl": list(further)}
    if path.exists() and not fresh and any((out / "studies" / study.name / "cells").glob("*/cell.json")):
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != launch:
            raise StudyError(
                f"study {study.name} in {out} was begun with --verl {' '.join(before['verl']) or 'nothing'}: give the "
                "same, another --out, or --fresh to move the old study aside and begin anew"
            )
    write_json(path, launch)
    return RUNNER


def is_installed() -> bool:
    """Return whether verl is installed; a folder that happens to be called so is not."""
    spec = importlib.util.find_spec("verl")
    return spec is not None and spec.origin is not None


def check_study(study: Study, seeds: Sequence[int], further: Sequence[str]) -> None:
    """Check that verl can run every cell of a study, each setting that it varies included.

    Raises:
        ConfigError: it cannot; one line lists every reason.
    """
    given = parse_words(further)
    problems: dict[str, None] = {}  # in order, each once
    for name in study.swept_names():
        other = counterpart(name)
        if isinstance(other, str) and name not in ("arm", "method"):
            problems[f"{name} (varied by study {study.name}): verl has no counterpart: {other}"] = None
    if study.bases is not None:
        reason = f"verl has no counterpart: {counterpart('base_seed')}"
        problems[f"bases = {study.bases} (study {study.name}): {reason}"] = None
    for cell in study.representative_cells(seeds):
        problems |= dict.fromkeys(check_run(cell.settings, given))
    if problems:
        raise ConfigError(f"--runner verl: {'; '.join(problems)}")


def check_run(settings: RunSettings, given: Mapping[str, str]) -> list[str]:
    """Return every reason why verl cannot run these settings beside these words."""
    problems = list(refusals(settings))
    for word, what in NEEDED.items():
        if word not in given:
            problems.append(f"{word} is not given: expected --verl {word}=..., {what}")
    if settings.has_critic and settings.critic.init == "reward-model" and "critic.model.path" not in given:
        problems.append(
            "critic.init = reward-model: expected --verl critic.model.path=FOLDER, a reward model with one label a "
            "token, or critic.init = policy"
        )
    for word in given:
        ours = our_name(word)
        if word == "critic.model.path" and settings.critic.init == "reward-model":
            ours = None
        if ours is not None:
            problems.append(f"--verl {word}={given[word]}: vcppo says it; use {ours}")
        elif word in SET_BY_VCPPO:
            problems.append(f"--verl {word}={given[word]}: vcppo says it, for it must find what verl writes")
    return problems


def silent_settings(cells: Sequence[Cell]) -> list[str]:
    """Return settings that differ from their default in some cell and have no counterpart in verl."""
    default = flatten(RunSettings().model_dump(mode="json"))
    differing = set()
    for cell in cells:
        tree = cell.settings.model_dump(mode="json")
        here = {**default, **defaults_beside(tree)}
        changed = (name for name, value in flatten(tree).items() if value != here.get(name, value))
        differing |= {name for name in changed if name not in ("arm", "method") and isinstance(counterpart(name), str)}
    return [name for name in default if name in differing]


def parse_words(words: Sequence[str]) -> dict[str, str]:
    """Parse KEY=VALUE words for verl, the plus signs taken off the keys.

    Raises:
        ConfigError: one of them is not of that form, or comes twice.
    """
    overrides: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        bare = key.strip().lstrip("+")
        if not equals or not bare:
            raise ConfigError(f"--verl {word}: expected KEY=VALUE, for example --verl trainer.n_gpus_per_node=8")
        if bare in overrides:
            raise ConfigError(f"--verl {word}: {bare} is given twice")
        overrides[bare] = value
    return overrides


def launch_file(study: Path) -> Path:
    """Return the file of verl's further words, next to the study's folder."""
    return study.with_name(f"{study.name}.verl.json")


def read_words(study: Path) -> list[str]:
    """Read a study's words for verl.

    Raises:
        StudyError: there is no such file, or it is another.
    """
    path = launch_file(study)
    try:
        return [str(word) for word in json.loads(path.read_text(encoding="utf-8"))["verl"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(f"{path}: missing or broken; `vcppo sweep ... --runner verl` writes it") from None


def command_line(overrides: Overrides) -> list[str]:
    """Return overrides as Hydra reads them.

    >>> command_line({"trainer.logger": ["console", "file"], "data.train_files": "a b.parquet", "critic.enable": True})
    ['trainer.logger=[console,file]', "data.train_files='a b.parquet'", 'critic.enable=True']
    """
    return [f"{key}={_hydra(value)}" for key, value in overrides.items()]


def _hydra(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
