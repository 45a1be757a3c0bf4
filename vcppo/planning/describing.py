"""A plan in print: a table of memory by phase, what to change, and assumed times."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from vcppo.planning.disk_estimate import StageDisk, estimate_disk, together
from vcppo.planning.lengths import lengths_of
from vcppo.planning.memory_estimate import GIB, Memory
from vcppo.planning.plan import (
    ARITHMETIC_SHARE,
    BANDWIDTH_SHARE,
    BYTES_PER_S,
    FLOPS,
    SLACK,
    Gpus,
    Plan,
)
from vcppo.planning.remedies import Remedy, gpus_needed, remedies
from vcppo.settings.run import RunSettings
from vcppo.system.disk import describe_bytes

COLUMNS = [field.name for field in fields(Memory)]


def plan_lines(settings: RunSettings, plan: Plan) -> Iterator[str]:
    """Yield the lines of `vcppo plan`."""
    shapes, machine = plan.shapes, plan.machine
    name = settings.model.path or f"a fresh {shapes.architecture}"
    yield (
        f"{name}: {shapes.policy_weights / 1e9:.3g} G weights, {shapes.layers} layers of {shapes.hidden_size}, "
        f"vocabulary {shapes.vocabulary}; "
        + (f"{machine.gpus} x " if machine.gpus else "no GPU, ")
        + f"{round(machine.memory / GIB, 1):g} GiB"
    )
    lengths = lengths_of(settings)
    yield (
        f"task {settings.task.name}: prompts of up to {lengths.longest_prompt:,} tokens, responses of up to "
        f"{lengths.limit:,}"
    )
    yield ""
    of = "each GPU" if machine.gpus else "main memory"
    yield f"GiB of {of} at the fullest moment of each phase, every response at its longest:"
    yield ""
    yield f"{'stage':18}{'phase':14}" + "".join(f"{column:>12}" for column in (*COLUMNS, "needs")) + "  fits"
    for phase in plan.phases:
        numbers = [getattr(phase.memory, column) for column in COLUMNS] + [phase.needs]
        fits = phase.needs <= machine.memory and not phase.note
        yield (
            f"{phase.stage:18}{phase.name:14}"
            + "".join(f"{number / GIB:12.1f}" for number in numbers)
            + ("  yes" if fits else "  NO")
        )
    yield ""
    yield (
        f"needs: the sum, {SLACK:.0%} lost between tensors, {machine.reserve / GIB:g} GiB "
        + ("of CUDA's own" if machine.gpus else "of Python's and its libraries'")
        + "; both assumed"
    )
    if plan.host:
        yield f"in main memory, for each process: {plan.host / GIB:.1f} GiB"
    yield from (f"{phase.stage}, {phase.name}: {phase.note}" for phase in plan.phases if phase.note)
    yield ""
    yield from _verdict(settings, plan)
    yield ""
    yield from _stage_lines(plan, estimate_disk(settings), settings.compute.dtype)


def _verdict(settings: RunSettings, plan: Plan) -> Iterator[str]:
    phase = plan.fullest
    room = (plan.machine.memory - phase.needs) / GIB
    if plan.fits:
        yield f"it fits: the fullest phase is {phase.stage}, {phase.name}, with {room:.1f} GiB to spare"
        return
    of = f"{phase.needs / GIB:.1f} GiB of {round(plan.machine.memory / GIB, 1):g}"
    yield f"it does not fit: {phase.stage}, {phase.name} needs {of}"
    yield from (_remedy_line(remedy) for remedy in remedies(settings, plan.machine))
    enough = gpus_needed(settings, Gpus(plan.machine.gpus, plan.machine.memory)) if plan.machine.gpus else None
    if enough is not None and enough > plan.machine.gpus:
        yield f"  --gpus {enough}: fits as it is"


def _remedy_line(remedy: Remedy) -> str:
    changes = ", ".join(f"{name} = {str(value).lower()}" for name, value in remedy.settings.items())
    return f"  {changes}: would save {remedy.saves / GIB:.1f} GiB" + (" and fit" if remedy.fits else "")


def _stage_lines(plan: Plan, disks: Sequence[StageDisk], dtype: str) -> Iterator[str]:
    timed = plan.machine.gpus > 0
    hours = "hours if responses were all of that length, " if timed else ""
    yield f"Tokens in millions at most, {hours}and disk: what stays and the most:"
    yield ""
    words = ("generated", "scored", "trained", *(("writing h", "passes h") if timed else ()), "disk", "most disk")
    yield f"{'stage':18}" + "".join(f"{word:>12}" for word in words)
    of_stage = {disk.stage: disk for disk in disks}
    for time in plan.times:
        tokens, disk = (time.generated, time.scored, time.trained), of_stage[time.stage]
        yield (
            f"{time.stage:18}"
            + "".join(f"{number / 1e6:12.2f}" for number in tokens)
            + (f"{time.generate_h:12.2f}{time.pass_h:12.2f}" if timed else "")
            + f"{describe_bytes(disk.stays):>12}{describe_bytes(disk.fullest):>12}"
        )
    total = together([disks], workers=1)
    on_disk = f"{describe_bytes(total.stays):>12}{describe_bytes(total.fullest):>12}"
    if not timed:
        yield f"{'together':18}{'':36}{on_disk}"
        yield "time without a GPU: vcppo train --dry-run"
        return
    spent = sum(time.generate_h + time.pass_h for time in plan.times)
    yield f"{'together':18}{'':36}{spent:24.2f}{on_disk}   {spent * plan.machine.gpus:.1f} GPU hours"
    yield (
        f"assumed, not measured: {ARITHMETIC_SHARE:.0%} of {FLOPS[dtype] / 1e12:g} TFLOP/s in passes, "
        f"{BANDWIDTH_SHARE:.0%} of {BYTES_PER_S / 1e12:g} TB/s in writing (an H100's data sheet)"
    )
