"""Address of a task from outside: all that its results depend on, so that no cache mixes two tasks of one name."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vcppo.errors import ConfigError
from vcppo.settings.digests import digest
from vcppo.settings.plugin import PluginTaskSettings, options_of, task_class
from vcppo.system.fingerprints import fingerprint


def plugin_address(settings: PluginTaskSettings) -> dict[str, Any]:
    """Return the class's name, its options with their defaults, and a digest of its source.

    Where the class has a `fingerprint`, that is in place of the digest; beside it, where the class has inherited it.

    Raises:
        ConfigError: there is no such class, it is no task, its options are wrong, or it has no source.
    """
    task = task_class(settings.name)
    options = options_of(task, settings.name, settings.options)
    made_of = {} if "fingerprint" in vars(task) else {"source": source_digest(settings.name)}
    if hasattr(task, "fingerprint"):
        made_of |= task.fingerprint(options)
    return {
        "name": settings.name,
        "options": options.model_dump(mode="json") if isinstance(options, BaseModel) else options,
        "made_of": made_of,
    }


def source_digest(name: str) -> str:
    """Return 12 hex digits of the source behind a class: all of the outermost package it lies in, or its module."""
    module = name.partition(":")[0]
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        spec = importlib.util.find_spec(".".join(parts[:count]))
        if spec is not None and spec.origin is not None and spec.has_location:  # a folder without __init__.py has none
            file = Path(spec.origin)
            return _digest_of_package(file.parent) if file.name == "__init__.py" else fingerprint(file)
    raise ConfigError(f"task.name = {name}: {module} has no source; expected a class method `fingerprint` of its class")


@functools.cache
def _digest_of_package(folder: Path) -> str:
    return digest({file.relative_to(folder).as_posix(): fingerprint(file) for file in sorted(folder.rglob("*.py"))})
