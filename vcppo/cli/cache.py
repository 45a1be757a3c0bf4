"""`vcppo cache`: what lies in the cache of stages, whether it is as it was written, and what can go."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcppo.cli.options import out_option
from vcppo.errors import ConfigError
from vcppo.system.disk import describe_bytes
from vcppo.system.terminal import duration

if TYPE_CHECKING:
    from vcppo.store.cache_contents import CachedStage
    from vcppo.store.cache_needs import StudyNeeds
    from vcppo.store.cache_removal import Plan, Removal

SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
ORDERS: Mapping[str, Callable[["CachedStage"], Any]] = {
    "stage": lambda stage: stage.key,
    "size": lambda stage: -stage.size,
    "age": lambda stage: stage.written,
}


@click.group("cache")
def cache() -> None:
    """List, check and prune OUT/cache, where every stage's result lies by its address.

    \b
    vcppo cache ls --sort size           what there is, how large and how old, and which studies need it
    vcppo cache verify                   is every file as it was written?
    vcppo cache gc                       what no study needs, and how long it took: nothing is removed yet
    vcppo cache gc --yes                 remove it
    vcppo cache gc --study old --yes     give up a study that has ended: its journals stay, and can be exported
    """


def _age(context: click.Context, parameter: click.Parameter, value: str | None) -> float:
    if value is None:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", value.strip())
    if match is None:
        raise ConfigError(f"--older-than {value}: expected a number with s, m, h, d or w, for example 30d")
    return float(match[1]) * UNITS[match[2]]


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return 0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(\w*)", value.strip())
    if match is None or match[2] not in SIZES:
        raise ConfigError(
            f"--larger-than {value}: expected a number of bytes or with kB, MB, GB, TB, for example 500MB"
        )
    return int(float(match[1]) * SIZES[match[2]])


def _stages(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    from vcppo.store.cache import VERSIONS

    for stage in value:
        if stage not in VERSIONS:
            raise ConfigError(f"--stage {stage}: no such stage, expected one of {', '.join(VERSIONS)}")
    return value


stage_option = click.option("--stage", "stages", multiple=True, callback=_stages, help="Only of this stage; repeat.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, sizes in bytes, times in seconds.")


@cache.command("ls")
@out_option
@click.option("--study", "studies", multiple=True, metavar="NAME", help="Only what this study needs; repeat.")
@stage_option
@click.option("--sort", type=click.Choice(list(ORDERS)), default="stage", show_default=True, help="By what.")
@json_option
def ls(out: Path, studies: tuple[str, ...], stages: tuple[str, ...], sort: str, as_json: bool) -> None:
    """List every stage's folder: its size, when it was last written, what it took to compute, which studies need it."""
    from vcppo.store.cache_needs import needs_of_studies

    needs = needs_of_studies(out)
    _check_known(studies, needs, out)
    listed = _chosen(out, needs, studies, stages)
    listed.sort(key=ORDERS[sort])
    if as_json:
        click.echo(json.dumps([_as_json(stage, needs) for stage in listed], indent=2))
        return
    for line in _listing(listed, needs, out):
        click.echo(line)


@cache.command("verify")
@out_option
@click.option("--study", "studies", multiple=True, metavar="NAME", help="Only what this study needs; repeat.")
@stage_option
@click.option("--sizes", is_flag=True, help="Compare sizes alone; no file is read.")
@json_option
def verify(out: Path, studies: tuple[str, ...], stages: tuple[str, ...], sizes: bool, as_json: bool) -> None:
    """Compare every file with the size and the digest that it was written with.

    What is damaged is computed again by the next run that needs it. Folders of earlier versions recorded nothing, so
    that nothing is known of them; what a process works on is left out. The exit code is 1 if a file is damaged.
    """
    from vcppo.store.cache_needs import needs_of_studies
    from vcppo.store.manifest import faults

    needs = needs_of_studies(out)
    _check_known(studies, needs, out)
    checked = [stage for stage in _chosen(out, needs, studies, stages) if stage.state in ("done", "unfinished")]
    recorded = [stage for stage in checked if stage.recorded]
    damage = {stage.key: found for stage in recorded if (found := faults(stage.path, digests=not sizes))}
    if as_json:
        unrecorded = [stage.key for stage in checked if not stage.recorded]
        click.echo(json.dumps({"checked": len(recorded), "unrecorded": unrecorded, "damage": damage}, indent=2))
        sys.exit(1 if damage else 0)
    for stage in recorded:
        for line in damage.get(stage.key, ()):
            users = ", ".join(study.study for study in needs if stage.key in study.stages) or "no study"
            click.echo(f"DAMAGED {stage.path}: {line}; needed by {users}")
    size = describe_bytes(sum(stage.size for stage in recorded))
    how = "sizes" if sizes else "sizes and digests"
    unknown = len(checked) - len(recorded)
    more = f"; of {unknown} others, unfinished or of an earlier version, nothing was recorded" if unknown else ""
    click.echo(f"{len(recorded)} folders of {size} checked by {how}, {len(damage)} of them damaged{more}")
    sys.exit(1 if damage else 0)


@cache.command("gc")
@out_option
@click.option(
    "--study",
    "studies",
    multiple=True,
    metavar="NAME",
    help="Give up a study that has ended: what it alone needs goes, but for its journals; repeat.",
)
@stage_option
@click.option("--older-than", "older_than_s", callback=_age, metavar="AGE", help="Only what is older, as 30d or 12h.")
@click.option("--larger-than", callback=_size, metavar="SIZE", help="Only what frees more, as 500MB.")
@click.option(
    "--moments", is_flag=True, help="Also the last moments of pretrained critics: to train on begins from the start."
)
@click.option("--yes", is_flag=True, help="Remove it. Without this nothing is removed.")
@json_option
def gc(
    out: Path,
    studies: tuple[str, ...],
    stages: tuple[str, ...],
    older_than_s: float,
    larger_than: int,
    moments: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what no study needs, what it took to compute, and with --yes remove it.

    A study needs what its cells went through, and what those that have not ended will come to: it goes on, is
    exported, and grows by further seeds as before. Of a value pretraining the critics go that no study starts from, and
    the optimiser's moments of all but the last. What a process works on stays. A killed removal is finished by the
    next one.
    """
    from vcppo.store.cache_removal import Choice, plan_removals, remove

    plan = plan_removals(out, Choice(studies, stages, older_than_s, larger_than, moments))
    outcomes = dict(remove(plan)) if yes else {}
    failed = any(reason is not None for reason in outcomes.values())
    if as_json:
        click.echo(json.dumps(_plan_json(plan, outcomes if yes else None), indent=2))
    else:
        for line in _plan_lines(plan, outcomes, out, yes=yes):
            click.echo(line)
    sys.exit(2 if failed else 0)


def _chosen(
    out: Path, needs: "Sequence[StudyNeeds]", studies: Sequence[str], stages: Sequence[str]
) -> "list[CachedStage]":
    from vcppo.store.cache_contents import cached_stages

    return [
        stage
        for stage in cached_stages(out)
        if (not stages or stage.stage in stages)
        and (not studies or any(stage.key in study.stages for study in needs if study.study in studies))
    ]


def _check_known(names: Sequence[str], needs: "Sequence[StudyNeeds]", out: Path) -> None:
    known = [study.study for study in needs]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--study {name}: not in {out / 'studies'}, expected one of {', '.join(known) or 'none: it is empty'}"
            )


def _listing(listed: "Sequence[CachedStage]", needs: "Sequence[StudyNeeds]", out: Path) -> Iterator[str]:
    if not listed:
        yield f"{out / 'cache'}: nothing there"
        return
    yield f"{'stage':18}{'address':18}{'size':>9}{'age':>13}{'took':>13}  {'state':11}needed by"
    for stage in listed:
        users = ", ".join(study.study for study in needs if stage.key in study.stages) or "-"
        took = "" if stage.wall_s is None else duration(stage.wall_s)
        size, age = describe_bytes(stage.size), duration(max(time.time() - stage.written, 0.0))
        yield f"{stage.stage:18}{stage.address:18}{size:>9}{age:>13}{took:>13}  {stage.state:11}{users}"
    yield ""
    for name in dict.fromkeys(stage.stage for stage in listed):
        of = [stage for stage in listed if stage.stage == name]
        yield f"{name:18}{len(of):>6} folders  {describe_bytes(sum(stage.size for stage in of)):>9}"
    yield f"{'together':18}{len(listed):>6} folders  {describe_bytes(sum(stage.size for stage in listed)):>9}"


def _plan_lines(plan: "Plan", outcomes: "Mapping[Removal, str | None]", out: Path, *, yes: bool) -> Iterator[str]:
    for removal in plan.removals:
        stage, again = removal.of, removal.again_s
        took = "never finished" if again is None else f"took {duration(again)}"
        reason = outcomes.get(removal)
        why = removal.why if reason is None else f"{removal.why}; STAYS: {reason}"
        age = duration(max(time.time() - stage.written, 0.0))
        yield (f"{stage.key:34}{describe_bytes(removal.frees):>9}{age:>13} old, {took}: {removal.kind}, {why}")
    for stage in plan.running:
        yield f"{stage.key:34}{describe_bytes(stage.size):>9} stays: a process works on it"
    if plan.needed:
        needed = ", ".join(f"{study} {describe_bytes(size)}" for study, size in plan.needed.items())
        yield f"needed by studies, shared stages counted for each: {needed}"
    if not plan.removals:
        yield f"{out / 'cache'}: {describe_bytes(plan.total)}, and nothing of it can go"
        return
    gone = [removal for removal in plan.removals if not yes or outcomes[removal] is None]
    seconds = sum(removal.again_s or 0.0 for removal in gone)
    freed = describe_bytes(sum(removal.frees for removal in gone))
    of = describe_bytes(plan.total)
    if yes:
        yield f"removed {freed} of {of}; to have it again would take {duration(seconds)} of computing"
        return
    yield (
        f"{freed} of {of} can go; to have it again would take {duration(seconds)} of computing. Nothing was removed: "
        "the same command with --yes does it"
    )


def _as_json(stage: "CachedStage", needs: "Sequence[StudyNeeds]") -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "address": stage.address,
        "path": str(stage.path),
        "state": stage.state,
        "size": stage.size,
        "written": stage.written,
        "wall_s": stage.wall_s,
        "parents": list(stage.parents),
        "needed_by": [study.study for study in needs if stage.key in study.stages],
    }


def _plan_json(plan: "Plan", outcomes: "Mapping[Removal, str | None] | None") -> dict[str, Any]:
    def entry(removal: "Removal") -> dict[str, Any]:
        about = {"stage": removal.of.stage, "address": removal.of.address, "kind": removal.kind, "why": removal.why}
        numbers = {"frees": removal.frees, "again_s": removal.again_s, "written": removal.of.written}
        if outcomes is None:
            return about | numbers
        return about | numbers | {"removed": outcomes[removal] is None, "stays_because": outcomes[removal]}

    return {
        "size": plan.total,
        "frees": plan.frees,
        "needed": plan.needed,
        "running": [stage.key for stage in plan.running],
        "removals": [entry(removal) for removal in plan.removals],
    }
