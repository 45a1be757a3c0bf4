"""`vcppo methods` and `vcppo settings`: what can be set, and to what."""

from pathlib import Path

import click

from vcppo.cli.options import config_option, load_with_notes, set_option


@click.command("methods")
@click.argument("name", required=False)
def methods_command(name: str | None) -> None:
    """List the methods, or what NAME sets over the defaults.

    \b
    vcppo methods
    vcppo methods vineppo
    vcppo train --set method=vineppo

    docs/methods.md has a page on each: its equation, its settings with their sources, when to use it.
    """
    from vcppo.settings.describing import describe_method, list_methods

    click.echo(list_methods() if name is None else describe_method(name))


@click.command("settings")
@config_option
@set_option
def settings_command(config: Path | None, assignments: tuple[str, ...]) -> None:
    """List every setting with its value and what it does."""
    from vcppo.settings.describing import describe_settings

    click.echo(describe_settings(load_with_notes(config, assignments)))
