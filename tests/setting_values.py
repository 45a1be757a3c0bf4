"""A setting's value by its dotted name."""

from vcppo.settings.loading import flatten
from vcppo.settings.run import RunSettings


def value_of(settings: RunSettings, name: str) -> object:
    return flatten(settings.model_dump(mode="json"))[name]
