"""Settings and methods as text."""

import typing

from pydantic import BaseModel

from vcppo.settings.loading import fields, method_tree
from vcppo.settings.methods import METHODS
from vcppo.settings.sections import RunSettings


def list_methods() -> str:
    """A line for each method."""
    return "\n".join(f"{name:22} {method.title:50} {method.source}" for name, method in METHODS.items())


def describe_method(name: str) -> str:
    """What a method sets over the defaults, with what each setting is.

    Raises:
        ConfigError: there is no such method.
    """
    method_tree(name, "vcppo methods")
    method = METHODS[name]
    words = {known: field.description for known, field in fields()}
    lines = [f"{setting + ' = ' + str(value):48} # {words[setting]}" for setting, value in method.settings.items()]
    return "\n".join([f"# {method.title} ({method.source})", *lines])


def describe_settings(settings: RunSettings) -> str:
    """Every setting by its dotted name, with its value and its description."""
    lines = []

    def walk(model: BaseModel, prefix: str) -> None:
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if isinstance(value, BaseModel):
                lines.append(f"\n# {(type(value).__doc__ or '').splitlines()[0]}")
                walk(value, f"{prefix}{name}.")
            else:
                shown = "none" if value is None else value
                allowed = [str(choice) for choice in typing.get_args(field.annotation) if isinstance(choice, str)]
                words = f"{field.description or ''}" + (f" ({' | '.join(allowed)})" if allowed else "")
                lines.append(f"{prefix + name + ' = ' + str(shown):48} # {words}")

    walk(settings, "")
    return "\n".join(lines)
