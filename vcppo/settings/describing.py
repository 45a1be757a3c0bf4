"""Settings and methods as lines of text: what `vcppo settings` and `vcppo methods` print."""

import typing
from typing import Literal

from vcppo.settings.kinds import KINDS, Setting, layout, other_kind
from vcppo.settings.loading import flatten, method_tree
from vcppo.settings.methods import METHODS
from vcppo.settings.run import RunSettings


def list_methods() -> str:
    """A line for each method."""
    return "\n".join(f"{name:22} {method.title:50} {method.source}" for name, method in METHODS.items())


def describe_method(name: str) -> str:
    """Describe a method: a line for each setting that it changes, with that setting's description.

    Raises:
        ConfigError: there is no such method.
    """
    method_tree(name, "vcppo methods")
    method = METHODS[name]
    known = layout()
    lines = [
        f"{setting + ' = ' + str(value):48} # {known[setting].description}"
        for setting, value in method.settings.items()
    ]
    return "\n".join([f"# {method.title} ({method.source})", *lines])


def describe_settings(settings: RunSettings) -> str:
    """Every setting by its dotted name, with its value and its description; of other kinds the default."""
    values = flatten(settings.model_dump(mode="json"))
    lines: list[str] = []
    before = ""
    for name, setting in layout().items():
        section = name.rpartition(".")[0]
        if section != before:
            lines.append(f"\n# {setting.about}")
            before = section
        value = values.get(name, setting.default)
        shown = "none" if value is None else value
        lines.append(f"{f'{name} = {shown}':48} # {_words(settings, setting)}")
    return "\n".join(lines)


def _words(settings: RunSettings, setting: Setting) -> str:
    deciding = KINDS.get(setting.name.removesuffix(f".{setting.name.split('.')[-1]}"))
    literal = len(setting.types) == 1 and typing.get_origin(setting.types[0]) is Literal
    choices = typing.get_args(setting.types[0]) if literal else ()
    if deciding is not None and deciding.name == setting.name:
        choices = tuple(deciding.all_models)
    words = setting.description + (f" ({' | '.join(map(str, choices))})" if choices else "")
    if other_kind(settings, setting.name) is None:
        return words
    return f"{words} [{KINDS[setting.name.split('.')[0]].name} = {' | '.join(setting.kinds)}]"
