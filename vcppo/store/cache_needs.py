"""Stages in the cache that the studies of a folder need.

A cell that has ended needs what it went through: an export reads the journals, and further cells share the stages. One
that has not, or that failed and may be run again, also needs what it will come to. Of a cell whose settings cannot be
read any more, what it recorded counts.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcppo.errors import ConfigError, StudyError
from vcppo.settings.critic import PretrainSettings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import addresses
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.study_folders import StudyFolder

_CRITIC = re.compile(r"critic-(\d+)")
FINISHED = ("done", "pruned")  # a failed cell may be run again


@dataclass
class StudyNeeds:
    """One study: what it needs, and how far it is."""

    study: str
    running: bool
    to_go: int = 0  # cells that have not ended, or have failed
    stages: set[str] = field(default_factory=set)  # as stage/address
    critics: dict[str, list[PretrainSettings]] = field(default_factory=lambda: defaultdict(list))  # by stage/address
    unknown: set[str] = field(default_factory=set)  # pretrainings of which nobody can say which critics are needed


def needs_of_studies(out: Path) -> list[StudyNeeds]:
    """Read what every study under OUT/studies needs, those that were moved aside among them.

    Raises:
        StudyError: the record of a cell cannot be read, so that nobody can say what it needs.
    """
    return [_needs(StudyFolder(out, path.name)) for path in sorted((out / "studies").glob("*/")) if path.is_dir()]


def _needs(study: StudyFolder) -> StudyNeeds:
    needs = StudyNeeds(study.name, study.is_running())
    _refuse_unknown(study)
    for cell in study.cells():
        record = cell.read()
        finished = record.state in FINISHED
        needs.to_go += not finished
        recorded = {f"{stage.stage}/{stage.address}" for stage in record.stages}
        needs.stages |= recorded
        for key, critic in _named(cell, study.out):
            needs.stages.add(key)
            if critic is not None:
                _add(needs.critics[key], PretrainSettings(steps=critic))
        settings = _settings(cell, record, finished)
        if settings is None:
            needs.unknown |= recorded
            continue
        reached = {f"{address.stage}/{address.key}" for address in addresses(settings).values()}
        needs.stages |= set() if finished else reached
        for key in recorded | reached if settings.pretrains else ():
            if key.startswith("value-pretraining/") and key in needs.stages:
                _add(needs.critics[key], settings.pretrain)
    return needs


def _refuse_unknown(study: StudyFolder) -> None:
    """Refuse a study with a cell whose record was moved aside, until a sweep has made it again."""
    for aside in sorted((study.path / "cells").glob("*/cell.json.bad-*")):
        if not aside.with_name("cell.json").exists():
            raise StudyError(
                f"{aside}: the record of a cell, moved aside, so that nobody can say what it needs; expected "
                f"`vcppo sweep {study.name}` to make it again, or no such folder"
            )


def _settings(cell: CellFolder, record: CellRecord, finished: bool) -> RunSettings | None:
    """The settings of a cell, None if they cannot be read, or if nothing depends on them."""
    if finished and not any(stage.stage == "value-pretraining" for stage in record.stages):
        return None
    try:
        return cell.settings()
    except ConfigError:
        return None


def _named(cell: CellFolder, out: Path) -> Iterator[tuple[str, int | None]]:
    """The stages whose models its settings name by their paths; of a pretrained critic also its updates."""
    try:
        settings: Any = json.loads((cell.path / "settings.json").read_bytes())
        paths = [settings.get(section, {}).get("path") for section in ("model", "critic")]
    except (OSError, ValueError, AttributeError):
        return
    cache = (out / "cache").resolve()
    for path in paths:
        if isinstance(path, str) and (there := Path(path).expanduser().resolve()).is_relative_to(cache):
            parts = there.relative_to(cache).parts
            critic = _CRITIC.fullmatch(parts[2]) if len(parts) > 2 else None
            yield "/".join(parts[:2]), None if critic is None else int(critic[1])


def _add(requests: list[PretrainSettings], settings: PretrainSettings) -> None:
    if settings not in requests:
        requests.append(settings)
