"""What a study was given on the command line, as options that whoever reads its results can give too."""

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vcppo.settings.loading import Layer, parse_assignment
from vcppo.system.redaction import redacted
from vcppo.system.shipped import shipped

PLACE = "PATH"  # of a local file or folder, in place of the folders above it, which are nobody's business


def given_options(layers: Iterable[Layer]) -> str:
    """Return `--config` and `--set` for layers of `vcppo sweep`, quoted for a shell; no secret and no private path.

    >>> given_options([Layer("--set", {"steps": 30, "model": {"path": "/home/me/models/mine"}})])
    '--set steps=30 --set model.path=PATH/mine'
    """
    words: list[str] = []
    for layer in layers:
        if layer.source == "--set":
            for name, value in _leaves(layer.tree):
                words += ["--set", f"{name}={_text(value)}"]
        else:
            file = Path(layer.source)
            words += ["--config", file.stem if file.parent == shipped("recipes") else f"{PLACE}/{file.name}"]
    return redacted(shlex.join(words))


def _leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names with their values: those within a setting that holds a table, `task.options`, too."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _text(value: Any) -> str:
    """Return a value as `--set` reads it."""
    shown = _without_folders(value)
    if isinstance(shown, str) and parse_assignment(f"x={shown}")[1] == shown:
        return shown
    return json.dumps(shown)


def _without_folders(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return f"{PLACE}/{Path(value).name}" if isinstance(value, str) and _is_local(value) else value


def _is_local(text: str) -> bool:
    """True of what can only be a path, and of one that is there; any other may be a hub's name."""
    if "/" not in text:
        return False
    return text.startswith(("/", "~", ".", "file:")) or os.path.exists(text)
