"""Text becomes settings: files, flags and methods, merged and validated once; how a mistake in them is told."""

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vcppo.composition import unused
from vcppo.config import RunSettings, evaluation_of_task
from vcppo.errors import ConfigError
from vcppo.methods import METHODS
from vcppo.textfile import read_text


@dataclass(frozen=True)
class Layer:
    """Settings from one place, as a tree."""

    source: str  # how a message calls the place
    tree: Mapping[str, Any]
    shared: bool = False  # meant for runs of several methods: what one of them would ignore may stand in it


def fields(model: type[BaseModel] = RunSettings, prefix: str = "") -> list[tuple[str, FieldInfo]]:
    """Every setting with its dotted name, in the order of declaration."""
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += fields(kind, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


def known_names() -> list[str]:
    """Every dotted setting name, in the order of declaration."""
    return [name for name, _ in fields()]


def setting_type(name: str) -> tuple[Any, ...]:
    """The types a setting may have, literals as they are: `pretrain.steps` is (int, Literal["converge"])."""
    model: type[BaseModel] = RunSettings
    *sections, leaf = name.split(".")
    for section in sections:
        model = typing.cast(type[BaseModel], model.model_fields[section].annotation)
    kind = model.model_fields[leaf].annotation
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def may_be_none(name: str) -> bool:
    """Whether a setting has the value None, which text calls `none`."""
    return types.NoneType in setting_type(name)


def nest(flat: Mapping[str, Any], source: str) -> dict[str, Any]:
    """{"gae.lambda_actor": 1} to {"gae": {"lambda_actor": 1}}; "none" is None where the setting may be None.

    Raises:
        ConfigError: a name is no setting.
    """
    known = set(known_names())
    values = {}
    for name, given in flat.items():
        if name not in known:
            raise ConfigError(f"{name} (from {source}): no such setting{_suggestion(name)}")
        values[name] = None if given == "none" and may_be_none(name) else given
    return _nested(values)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` with a TOML value; a bare word is a string.

    >>> parse_assignment("gae.lambda_actor=0.99")
    ('gae.lambda_actor', 0.99)
    >>> parse_assignment("pretrain.steps=converge")
    ('pretrain.steps', 'converge')
    """
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {text}: expected key=value, for example --set gae.lambda_actor=0.99")
    raw = raw.strip()
    try:
        return name.strip(), tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), raw


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict; a file that cannot be read is a ConfigError with its line."""
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def load_settings(
    config: Path | None = None, assignments: Iterable[str] = (), *, checkpoint: str | None = None
) -> RunSettings:
    """Defaults, the method's settings, then a file, then `--set key=value` flags; later wins, validated once.

    A JSON file is the record of a run: what in it is as its method has it counts as not said, and the rest was judged
    when the run was made.

    Args:
        checkpoint: what is worked on, the model of a task that needs one unless the settings name another.
    """
    layers = []
    if config is not None:
        record = config.suffix == ".json"
        layers.append(Layer(str(config), _differences(_read_json(config)) if record else read_toml(config), record))
    flags = dict(parse_assignment(text) for text in assignments)
    layers.append(Layer("--set", nest(flags, "--set")))
    said = {name: value for layer in layers for name, value in flatten(layer.tree).items()}
    if checkpoint is not None and said.get("task.name") == "maths" and said.get("model.path") is None:
        layers.append(Layer("the command", nest({"model.path": checkpoint}, "the command")))
    return build_settings(layers)


def build_settings(layers: Sequence[Layer]) -> RunSettings:
    """Merge layers over the settings of the method they name, and validate; a mistake is told with its layer.

    Raises:
        ConfigError: a name is unknown, a value out of range, settings do not go together, or one of them, in a layer
            that is not shared, would be ignored.
    """
    method = RunSettings.model_fields["method"].default
    for layer in layers:
        method = layer.tree.get("method", method)
    merged = method_tree(method, next((x.source for x in reversed(layers) if "method" in x.tree), "default"))
    for layer in layers:
        merged = _merge(merged, layer.tree)
    try:
        settings = RunSettings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail, layers) for detail in error.errors())) from None
    for layer in layers:
        if not layer.shared:
            _refuse_unused(settings, layer)
    return settings


def override(base: RunSettings, overrides: Mapping[str, Any], *, source: str = "overrides") -> RunSettings:
    """`base` with dotted names replaced, validated anew. Another method keeps only what base had set beside its own.

    Raises:
        ConfigError: as `build_settings`; the message names `source`.
    """
    kept = _differences(base.model_dump(mode="json"))
    return build_settings([Layer("base", kept, shared=True), Layer(source, nest(overrides, source))])


def method_tree(method: Any, source: str) -> dict[str, Any]:
    """A method's settings as a tree, its name included.

    Raises:
        ConfigError: there is no such method.
    """
    if method not in METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(METHODS)}"
        raise ConfigError(f"method = {method!r} (from {source}): no such method; {hint}")
    return {"arm": method, "method": method, **nest(METHODS[method].settings, f"method {method}")}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"gae": {"gamma": 1}} to {"gae.gamma": 1}, the inverse of `nest`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _differences(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What a tree says that its method, or of `evaluation` its task, does not say already."""
    method = tree.get("method", RunSettings.model_fields["method"].default)
    own = flatten(RunSettings.model_validate(method_tree(method, "its record")).model_dump(mode="json"))
    task = tree.get("task")
    if isinstance(task, Mapping) and "name" in task:
        own |= flatten({"evaluation": evaluation_of_task(task["name"])})
    said = {name: value for name, value in flatten(tree).items() if name not in own or own[name] != value}
    return _nested({**said, "method": method})


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[leaf] = value
    return tree


def _refuse_unused(settings: RunSettings, layer: Layer) -> None:
    flat = flatten(layer.tree)
    whole_record = flat.keys() >= set(known_names())
    for name, value in flat.items():
        reason = None if whole_record else unused(settings, name)
        if reason is not None:
            raise ConfigError(f"{name} = {value!r} (from {layer.source}): it would be ignored, for {reason}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected an object of settings, found {type(tree).__name__}")
    return tree


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        both_trees = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if both_trees else value
    return merged


def _suggestion(name: str) -> str:
    known = known_names()
    close = difflib.get_close_matches(name, known, n=1) or [k for k in known if k.split(".")[-1] == name.split(".")[-1]]
    return f"; did you mean {close[0]}?" if close else "; `vcppo settings` lists them all"


def _explain(detail: Any, layers: Sequence[Layer]) -> str:
    """One pydantic error as one clause: name, value, source, what was wanted."""
    location = [str(part) for part in detail["loc"]]
    known = known_names()
    while len(location) > 1 and ".".join(location) not in known and detail["type"] != "extra_forbidden":
        location.pop()  # pydantic appends the union's member
    name = ".".join(location)
    source = next(
        (layer.source for layer in reversed(layers) if _holds(layer.tree, location)), "the combination of settings"
    )
    if detail["type"] == "extra_forbidden":
        return f"{name} (from {source}): no such setting{_suggestion(name)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return str(message)
    return f"{name} = {detail['input']!r} (from {source}): {message[0].lower()}{message[1:]}"


def _holds(tree: Any, location: list[str]) -> bool:
    for part in location:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True
