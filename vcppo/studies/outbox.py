"""Trials that Optuna's storage has not confirmed, on disk beside the cells that say the same.

The folders are the truth and the storage their mirror, so losing this file loses nothing: at a study's next opening its
trials are compared with the folders. It is for who looks at a study whose storage is away.
"""

from collections.abc import Iterable
from pathlib import Path

from vcppo.store.study_folders import read_object
from vcppo.system.files import write_json

FILE = "optuna.outbox.json"


def owed_trials(study: Path) -> list[str]:
    """Return the names of the trials that the storage of the study in this folder has not confirmed."""
    return [str(name) for name in read_object(study / FILE).get("trials", [])]


def write_owed(study: Path, trials: Iterable[str]) -> None:
    """Put the names on disk; without any the file goes."""
    names = sorted(trials)
    if names:
        write_json(study / FILE, {"trials": names})
    else:
        (study / FILE).unlink(missing_ok=True)
