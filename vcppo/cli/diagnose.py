"""`vcppo diagnose`: what is wrong with a critic, on anybody's responses."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcppo.cli.options import config_option, set_option, tracking_option
from vcppo.cli.output import address_line, print_notes
from vcppo.diagnosis.dumps.form import ROLES
from vcppo.diagnosis.dumps.forms import FORMS
from vcppo.errors import ConfigError, TrackingError
from vcppo.settings.loading import load
from vcppo.settings.notes import lines
from vcppo.system.processes import is_main

if TYPE_CHECKING:
    from vcppo.diagnosis.schema import Report

LAMBDAS = "0.9,0.95,0.99,1"
EXPERIMENT = "vcppo/diagnose"


@click.command("diagnose")
@click.option(
    "--answers",
    "responses",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="Logged responses: a file or a folder of files; repeat. Without it, --policy writes some.",
)
@click.option("--form", type=click.Choice(list(FORMS)), help="Whose log it is. [default: by its columns]")
@click.option(
    "--column", "columns", multiple=True, metavar="ROLE=NAME", help=f"Where a role is: {', '.join(ROLES)}; repeat."
)
@click.option("--limit", type=click.IntRange(1), help="Responses to look at, of prompts drawn at random.")
@click.option(
    "--critic",
    "critics",
    multiple=True,
    metavar="[NAME=]PATH",
    help="A critic's folder, in the layout of any trainer; repeat to compare. [default: the logged values]",
)
@click.option("--policy", metavar="PATH", help="The policy that wrote the responses: gradients need it.")
@click.option("--prompts", type=click.IntRange(1), default=128, show_default=True, help="To sample, without --answers.")
@click.option("--samples", type=click.IntRange(1), default=8, show_default=True, help="Responses to each of them.")
@click.option("--lambdas", default=LAMBDAS, show_default=True, help="Of the advantages that are looked at.")
@click.option("--batch", type=click.IntRange(1), help="Responses an update has. [default: that of the settings]")
@click.option(
    "--gradient-responses",
    type=click.IntRange(16),
    metavar="N",
    help="Responses that gradients are taken of. [default: all, or as many as half an hour of two cores, or of the "
    "GPUs, pays for]",
)
@click.option("--shown", type=click.IntRange(0), default=200, show_default=True, help="Responses that can be viewed.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("diagnosis"),
    show_default=True,
    help="Where the report goes.",
)
@click.option("--mlflow", is_flag=True, help="Log numbers, verdicts and the page to a run of MLflow too.")
@tracking_option
@config_option
@set_option
def diagnose(
    responses: tuple[Path, ...],
    form: str | None,
    columns: tuple[str, ...],
    limit: int | None,
    critics: tuple[str, ...],
    policy: str | None,
    prompts: int,
    samples: int,
    lambdas: str,
    batch: int | None,
    gradient_responses: int | None,
    shown: int,
    out: Path,
    mlflow: bool,
    tracking_uri: str | None,
    config: Path | None,
    assignments: tuple[str, ...],
) -> None:
    """Say what is wrong with a critic, and where PPO goes with it: a page with a verdict in words.

    Responses are anybody's: logs of verl, TRL, OpenRLHF, NeMo-RL, slime, lighteval or vcppo, or any JSON Lines or
    Parquet with a prompt, a response and a score. Nothing is unpickled, nothing is trained.

    \b
    vcppo diagnose --answers rollouts/ --critic checkpoints/global_step_100/critic
    vcppo diagnose --answers log.parquet                                the values that were logged
    vcppo diagnose --answers rollouts/ --critic a=CRITIC --critic b=CRITIC --policy POLICY
    vcppo diagnose --policy runs/cache/cold-start/ADDRESS/policy --critic runs/cache/reward-model/ADDRESS/critic

    It writes OUT/index.html, which opens from disk, and OUT/report.json. Stop it at any moment: the same command goes
    on. docs/diagnose.md goes from symptoms to verdicts.
    """
    resolved = load(config, assignments, checkpoint=policy)
    print_notes(lines(resolved.notes))
    settings, chosen, roles = resolved.settings, _lambdas(lambdas), _columns(columns)
    named = [_named(text) for text in critics]
    if len({name for name, _ in named}) < len(named):
        raise ConfigError("--critic: two are called alike; expected NAME=PATH with a name of its own for each")
    if not responses and policy is None:
        raise ConfigError("--answers: expected logged responses, or --policy to write some")
    if not responses and not named:
        raise ConfigError("--critic: expected one, since responses that are sampled come without values")
    address = None
    if mlflow or tracking_uri is not None:
        from vcppo.tracking.reports import report_address

        address = report_address(tracking_uri, out)
    from vcppo.diagnosis.diagnose import Diagnosis, NamedCritic
    from vcppo.diagnosis.dumps.reading import read_dump
    from vcppo.diagnosis.progress import DiagnosisView
    from vcppo.diagnosis.report.writing import PAGE, write_report
    from vcppo.diagnosis.sampling import sample_responses
    from vcppo.diagnosis.task_prompts import as_asked
    from vcppo.models.distributed import together

    began = time.time()
    known = tuple(NamedCritic(*critic) for critic in named)
    layouts = [critic.layout.name for critic in known]  # one that cannot be loaded is refused before anything is read
    print_notes([f"{critic.name}: {layout}" for critic, layout in zip(known, layouts, strict=True)])
    with together(), DiagnosisView() as view:
        if responses:
            dump = read_dump(responses, form=form, columns=roles, limit=limit, seed=settings.seed)
            dump = as_asked(dump, settings.task)
        else:
            assert policy is not None
            folder = out / "responses"
            files = sample_responses(
                policy, settings, prompts=prompts, samples=samples, folder=folder,
                on_progress=lambda done, of: view("sampling", done, of),
            )  # fmt: skip
            dump = replace(
                read_dump(files, form="generic", limit=limit, seed=settings.seed), source=f"{policy}, sampled"
            )
        diagnosis = Diagnosis(
            dump=dump,
            critics=known,
            policy=policy,
            lambdas=chosen,
            batch_size=batch or settings.rollout.prompts * settings.rollout.samples_per_prompt,
            shown=shown,
            settings=settings,
            folder=out / "cache",
            progress=view,
            gradient_responses=gradient_responses,
        )
        if (line := diagnosis.outlook()) is not None:
            view.say(line)
        report, viewer = diagnosis.run(" ".join(["vcppo", *sys.argv[1:]]))
        if is_main():
            write_report(report, viewer, out)
    if is_main():
        for verdict in report.verdicts:
            where = "" if verdict.critic is None else f"{verdict.critic}: "
            click.echo(f"{verdict.severity:8} {where}{verdict.title}\n         {verdict.sentence}")
            if verdict.advice:
                click.echo(f"         {verdict.advice}")
        click.echo(f"written to {out / PAGE}")
        if address is not None:
            _log(report, out, address, began)


def _log(report: "Report", out: Path, address: str, began: float) -> None:
    """Log what is on disk by now; an MLflow that is away is one line, and the report is there all the same."""
    from vcppo.diagnosis.report.logged import as_logged
    from vcppo.tracking.reports import log_report

    try:
        log_report(as_logged(report, out, began=began), address, experiment=EXPERIMENT, artifacts=out / "mlartifacts")
    except TrackingError as error:
        raise TrackingError(f"the report is written, and did not reach MLflow: {error}") from None
    click.echo(address_line(address))


def _lambdas(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(0.0 <= number <= 1.0 for number in numbers):
        raise ConfigError(f"--lambdas {text}: expected numbers in [0, 1] with commas between, such as {LAMBDAS}")
    return numbers


def _named(text: str) -> tuple[str, str]:
    """(name, path) of a critic; without a name, the path's last two parts."""
    name, separator, path = text.partition("=")
    if separator and "/" not in name:
        return name, path
    return "/".join(Path(text).parts[-2:]), text


def _columns(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for text, (role, separator, name) in zip(texts, pairs, strict=True):
        if not separator or not name or role not in ROLES:
            raise ConfigError(f"--column {text}: expected ROLE=NAME, ROLE one of {', '.join(ROLES)}")
    return {role: name for role, _, name in pairs}
