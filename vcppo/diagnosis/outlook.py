"""Outlook of a diagnosis: what it will read, and what that takes, said before it begins."""

from pathlib import Path

from vcppo.diagnosis.responses import Dump
from vcppo.diagnosis.tokens import Tokenized
from vcppo.errors import CheckpointError
from vcppo.models.distributed import world
from vcppo.models.loading import load_config
from vcppo.planning.diagnosis_plan import DiagnosisPlan, Workload, plan_diagnosis
from vcppo.planning.memory_estimate import GIB
from vcppo.planning.plan import ARITHMETIC_SHARE, FLOPS, Gpus
from vcppo.planning.shapes import Shapes, shapes_in
from vcppo.planning.speeds import matrix_product_rate, reached_share
from vcppo.settings.run import RunSettings
from vcppo.system.terminal import duration


def workload_of(dump: Dump, tokenized: Tokenized, *, critics: int, lambdas: int) -> Workload:
    """Count the prompts, responses and tokens of a dump that are to be read."""
    lengths = tokenized.total_lengths
    return Workload(
        responses=len(lengths),
        prompts=len({dump.responses[row].problem for row in tokenized.rows}),
        tokens=int(lengths.sum()),
        longest=int(lengths.max()),
        written=sum(map(len, tokenized.responses)),
        critics=critics,
        lambdas=lambdas,
    )


def outlook(
    settings: RunSettings,
    workload: Workload,
    *,
    policy: Path | str | None,
    critic: Path | str | None,
    gradient_responses: int | None,
) -> DiagnosisPlan | None:
    """The plan of a diagnosis here; None where a model is of a family whose shapes are not known.

    Args:
        policy, critic: folders in transformers' format, or names on the hub.
        gradient_responses: as it was asked for.
    """
    here, trust = world(), settings.model.trust_remote_code
    try:
        of_policy, of_critic = (None if path is None else _shapes(path, trust=trust) for path in (policy, critic))
    except CheckpointError:
        return None
    machine = Gpus(here.size if here.device.type == "cuda" else 0, 0.0)
    return plan_diagnosis(
        settings, workload, policy=of_policy, critic=of_critic, machine=machine, gradient_responses=gradient_responses
    )


def outlook_line(settings: RunSettings, plan: DiagnosisPlan) -> str:
    """One line on what will be read, how long that may take on this machine, and the memory of a process."""
    work, here = plan.workload, world()
    readers = {0: "", 1: "; a critic reads them"}.get(work.critics, f"; {work.critics} critics read them")
    of = "all" if plan.gradient_responses == work.responses else f"{plan.gradient_responses:,}"
    slopes = f"; gradients of {work.kinds} kinds of advantages are taken of {of}" if plan.gradient_responses else ""
    on_gpu = here.device.type == "cuda"
    share = ARITHMETIC_SHARE if on_gpu else reached_share(plan.hidden_size)
    rate = (FLOPS[settings.compute.dtype] if on_gpu else matrix_product_rate()) * share * here.size
    takes = f"{plan.in_main_memory / GIB:.1f} GiB"
    if on_gpu:
        needs = max(phase.needs for phase in plan.phases)
        takes = f"{needs / GIB:.1f} GiB of each GPU and {max(plan.host) / GIB:.1f} of main memory for each process"
    return (
        f"{work.responses:,} responses, {work.tokens:,} tokens with their prompts{readers}{slopes}: "
        f"about {duration(plan.operations / rate)}, {takes}"
    )


def _shapes(path: Path | str, *, trust: bool) -> Shapes:
    return shapes_in(load_config(path, trust_remote_code=trust).to_dict(), path)
