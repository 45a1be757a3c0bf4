"""Critics that the runs of a study request of value pretraining, written down before any of them starts.

Whichever run comes first computes it, and removes the critics that nobody wants: it has to know what the others do.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from vcppo.settings.run import RunSettings
from vcppo.store.cache import CachedStage
from vcppo.store.pretrained_critics import add_request


def request_critics(out: Path, runs: Iterable[tuple[RunSettings, Mapping[str, str]]]) -> None:
    """Note the critic that each of these runs will start RL from.

    Args:
        runs: settings, and the keys of their addresses by stage.
    """
    for settings, keys in runs:
        if settings.pretrains:
            add_request(CachedStage(out, "value-pretraining", keys["value-pretraining"]).path, settings.pretrain)
