"""A cell, one run of a study: a configuration with a seed; its name, and what no two cells of a study may share."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vcppo.errors import ConfigError
from vcppo.settings.digests import digest
from vcppo.settings.loading import Layer, Resolved
from vcppo.settings.run import RunSettings
from vcppo.settings.unused import unused
from vcppo.store.cache import keys_of

LONGEST_NAME = 120  # characters; a folder's name may have 255 bytes, and others build on ours


@dataclass(frozen=True)
class Cell:
    """One run of a study: a configuration with a seed."""

    name: str
    arm: str
    seed: int
    swept: dict[str, Any]  # dotted setting -> value, the same names for every cell of the study
    resolved: Resolved

    @property
    def settings(self) -> RunSettings:
        """The settings that it runs with."""
        return self.resolved.settings

    @functools.cached_property
    def keys(self) -> dict[str, str]:
        """The keys of its addresses in the cache, by stage: made once, for every setting is hashed for them."""
        return keys_of(self.settings)

    @property
    def base_seed(self) -> int:
        """The seed of its cold start and reward model."""
        return self.settings.base_seed


def set_for_cell(arm: str, base: int | None, seed: int) -> Layer:
    """Return what a study sets for each cell."""
    return Layer("study", {"arm": arm, "seed": seed} | ({} if base is None else {"base_seed": base}))


def cell_name(arm: str, base: int | None, seed: int) -> str:
    """Return a cell's name; base 0, the default, has no part of its own, so a study goes on when bases are added.

    >>> cell_name("ppo", None, 3), cell_name("ppo", 0, 3), cell_name("ppo", 1, 3)
    ('ppo-s3', 'ppo-s3', 'ppo-b1-s3')
    """
    return f"{arm}-b{base}-s{seed}" if base else f"{arm}-s{seed}"


def run_name(settings: RunSettings) -> str:
    """Return the name of the folder of a run that is in no study.

    Raises:
        ConfigError: its arm cannot be part of a folder's name.
    """
    arm = settings.arm
    if arm.startswith(".") or "/" in arm or not arm.isprintable():
        raise ConfigError(f"arm = {arm!r}: it names a folder; expected no /, no control character and no dot before it")
    return shortened(f"{arm}-s{settings.seed}-{settings.digest()[:6]}")


def at(cell: Cell, base: int | None, seed: int) -> Cell:
    """Return the same configuration with another seed and base seed; None leaves the base seed as it is set."""
    seeds = {"seed": seed} | ({} if base is None else {"base_seed": base})
    resolved = replace(cell.resolved, settings=cell.settings.model_copy(update=seeds))
    return replace(cell, name=cell_name(cell.arm, base, seed), seed=seed, resolved=resolved)


def no_use(cell: Cell, name: str) -> str | None:
    """Return why a run would ignore its study's base for a setting; None if it may use it."""
    if name in cell.resolved.gave_way:
        return f"method {cell.settings.method}, which its arm names, has a value of its own"
    return unused(cell.settings, name)


def values_of(settings: RunSettings, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of dotted settings, as JSON; None for one that no record has but those of another kind."""
    names = list(names)
    dump = settings.model_dump(mode="json", include={name.partition(".")[0] for name in names})
    values = {}
    for name in names:
        value: Any = dump
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        values[name] = value
    return values


def as_name(value: Any) -> str:
    """Return a value as part of a folder's name."""
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)


def shortened(name: str) -> str:
    """Return a name that a file system takes, its end replaced by a digest where it is too long."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 13]}~{digest(name)}"


def refuse_twins(study: str, configurations: Sequence[Cell], cells: Sequence[Cell]) -> None:
    """Check that no two cells share a name or all settings.

    Args:
        configurations: cells of one seed, so that those with the same settings are of two configurations.
    Raises:
        ConfigError: two do.
    """
    first: dict[str, Cell] = {}
    keys = [("name", cell.name, cell) for cell in cells]
    keys += [("settings", cell.settings.digest(), cell) for cell in configurations]
    for what, key, cell in keys:
        twin = first.setdefault(f"{what} {key}", cell)
        if twin is not cell:
            raise ConfigError(f"study {study}: {twin.name} and {cell.name} have the same {what}: one run twice")
