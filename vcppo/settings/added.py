"""Settings that are newer than records of runs: what stands for the time before them, on reading and in hashes.

A setting that is added gets a line here, with the value that does what was done before there was it. A record without
it is a run with that value, and digests and addresses leave that value out: what was computed before is found. The
setting's default may be another one.
"""

from collections.abc import Mapping
from typing import Any

ADDED: Mapping[str, Any] = {  # dotted names
    "pretrain.held_out_prompts": "shared",
    "pretrain.gae_lambda": 1.0,
    "pretrain.checkpoints": "requested",  # no number depends on it
    "critic.offset": 0.0,
    "critic.profile": None,
    "critic.scores": "raw",
    "record.checkpoint_every_s": 120.0,  # it changes no result: a record without it is a run with any
    # what is measured beside training changes no number of it: runs of before have fewer metrics, and are the same runs
    "record.alignment_every": "auto",
    "guard.on_warning": "continue",
    "record.forecast_responses": 0,
}


def with_added(record: Mapping[str, Any]) -> dict[str, Any]:
    """The whole record of a run with the settings that are newer than it.

    Patience was counted in measurements until held-out prompts could be chosen: a record without that choice has 2
    where 20 updates were meant.
    """
    complete = dict(record)
    pretrain = record.get("pretrain")
    if isinstance(pretrain, Mapping) and "held_out_prompts" not in pretrain and "patience" in pretrain:
        updates = pretrain["patience"] * pretrain["evaluate_every"]
        complete["pretrain"] = {**pretrain, "patience": updates}
    for name, value in ADDED.items():
        section, leaf = name.split(".")
        if isinstance(complete.get(section), Mapping):
            complete[section] = {leaf: value, **complete[section]}
    return complete


def without_added(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree as hashes know it: without newer settings that are as before, and with patience in measurements."""
    plain = dict(tree)
    pretrain = tree.get("pretrain")
    if isinstance(pretrain, Mapping) and "held_out_prompts" in pretrain:
        measurements, rest = divmod(pretrain["patience"], pretrain["evaluate_every"])
        in_hash = f"{pretrain['patience']} updates" if rest else measurements
        plain["pretrain"] = {**pretrain, "patience": in_hash}
    for name, value in ADDED.items():
        section, leaf = name.split(".")
        branch = plain.get(section)
        if isinstance(branch, Mapping) and leaf in branch and branch[leaf] == value:
            plain[section] = {other: x for other, x in branch.items() if other != leaf}
    return plain
