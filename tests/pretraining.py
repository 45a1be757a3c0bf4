"""The stage of value pretraining in a folder of its own, and what it leaves."""

import shutil
from pathlib import Path
from typing import Any

from tiny import tiny
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.maths.settling import Measurement
from vcppo.models import forward
from vcppo.stages.context import StageContext
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal
from vcppo.store.pretrained_critics import measurements_in
from vcppo.types import RolloutBatch

FROM_POLICY = "critic.init=policy"


def context(before: Path, out: Path, *assignments: str) -> StageContext:
    """The stage with these settings in an --out of its own, over the same earlier stages."""
    init = () if any(text.startswith("critic.init=") for text in assignments) else (FROM_POLICY,)
    settings = tiny(*init, *assignments)
    found = addresses(settings)
    for name in ("cold-start", "answers"):
        there = StageFolder(out, found[name]).path
        if not there.exists():
            plain = StageFolder(before, addresses(tiny(FROM_POLICY))[name]).path
            shutil.copytree(plain, there)
    earlier = {name: StageFolder(out, found[name]) for name in ("cold-start", "answers")}
    return StageContext(settings, StageFolder(out, found["value-pretraining"]), earlier)


def told(stage_context: StageContext) -> list[dict[str, Any]]:
    records = read_journal(stage_context.folder.path / "journal.jsonl")
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def measured_in(here: StageContext) -> list[Measurement]:
    return measurements_in(here.folder.path / "journal.jsonl")


def spread(critic: PreTrainedModel, batch: RolloutBatch) -> Tensor:
    return forward.response_values(critic, batch).detach()[batch.response_mask]


def first_done(done: StageContext) -> StageContext:
    """The context of the stage after."""
    earlier = {**done.earlier, "value-pretraining": done.folder}
    return StageContext(done.settings, done.folder, earlier)
