"""Address of a task from outside: all that its results depend on, so that no cache mixes two tasks of one name."""

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vcppo.errors import ConfigError
from vcppo.settings.digests import digest
from vcppo.settings.plugin import PluginTaskSettings, options_of, task_class
from vcppo.system.fingerprints import fingerprint

KNOWN = {"vcppo", *sys.stdlib_module_names}  # packages that a class may inherit from without being of another source


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
    """Return 12 hex digits of the source behind a class, and behind those it inherits from outside vcppo and Python.

    Of each it is all of the outermost package that it lies in, or its module.

    Raises:
        ConfigError: there is no such class, or no source of one.
    """
    inherited = [kind.__module__ for kind in task_class(name).__mro__]
    modules = [name.partition(":")[0], *(module for module in inherited if module.partition(".")[0] not in KNOWN)]
    sources = dict(_source(name, module) for module in modules)
    return digest(sources) if len(sources) > 1 else next(iter(sources.values()))


def _source(name: str, module: str) -> tuple[str, str]:
    """The outermost package that a module lies in, or the module, and the digest of its source."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        outermost = ".".join(parts[:count])
        spec = importlib.util.find_spec(outermost)
        if spec is not None and spec.origin is not None and spec.has_location:  # a folder without __init__.py has none
            file = Path(spec.origin)
            return outermost, _digest_of_package(file.parent) if file.name == "__init__.py" else fingerprint(file)
    raise ConfigError(f"task.name = {name}: {module} has no source; expected a class method `fingerprint` of its class")


@functools.cache
def _digest_of_package(folder: Path) -> str:
    return digest({file.relative_to(folder).as_posix(): fingerprint(file) for file in sorted(folder.rglob("*.py"))})
