"""Critics that the runs of a study request of value pretraining, written down before any of them starts.

Whichever run comes first computes it, and removes the critics that nobody wants: it has to know what the others do.
"""

from collections.abc import Iterable
from pathlib import Path

from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.pretrained_critics import add_request


def request_critics(out: Path, runs: Iterable[RunSettings]) -> None:
    """Note the critic that each of these runs will start RL from."""
    for settings in runs:
        if settings.pretrains:
            add_request(StageFolder(out, addresses(settings)["value-pretraining"]).path, settings.pretrain)
