"""Options that several commands have, and how settings are made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vcppo.cli.output import print_notes
from vcppo.cli.recipes import settings_file
from vcppo.errors import ConfigError
from vcppo.settings.loading import load
from vcppo.settings.notes import lines
from vcppo.settings.run import RunSettings
from vcppo.system.redaction import remember
from vcppo.tracking.off import OFF

Command = Callable[..., Any]


def address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return an address that may contain a password, redacted in all output from here on."""
    remember(value)
    return value


def store_address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the address of a store that is there.

    Raises:
        ConfigError: it is none.
    """
    if value == OFF:
        raise ConfigError(f"--tracking-uri {OFF}: expected MLflow's address; commands that run can do without")
    return address(context, parameter, value)


def file_or_recipe(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """Return the settings file, by its path or as a recipe that comes with vcppo."""
    return None if value is None else settings_file(value)


config_option = click.option(
    "--config",
    metavar="FILE",
    callback=file_or_recipe,
    help="TOML file of settings, the settings.json of an earlier run, or the name of a recipe of vcppo.",
)
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, for example gae.lambda_actor=0.99; repeat.",
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where results go.",
)
tracking_option = click.option(
    "--tracking-uri",
    metavar="URI",
    callback=store_address,
    help="MLflow server or database. [default: $MLFLOW_TRACKING_URI, else OUT/mlflow.db]",
)
run_tracking_option = click.option(
    "--tracking-uri",
    metavar="URI",
    callback=address,
    help=f"MLflow server or database; `{OFF}`: none. [default: $MLFLOW_TRACKING_URI, else OUT/mlflow.db]",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the settings and the estimated cost, run nothing.")


def run_options(command: Command) -> Command:
    """Add the options of every command that runs stages."""
    for option in (dry_run_option, run_tracking_option, out_option, set_option, config_option):
        command = option(command)
    return command


def load_with_notes(config: Path | None, assignments: tuple[str, ...]) -> RunSettings:
    """Load the settings of --config and --set; print the notes on values resolved beside them.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another.
    """
    resolved = load(config, assignments)
    print_notes(lines([*resolved.notes, *resolved.of_model]))
    return resolved.settings
