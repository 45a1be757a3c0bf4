"""Text becomes settings: files, flags and methods, merged and validated once; how a mistake in them is told."""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from pydantic import ValidationError

from vcppo.errors import ConfigError
from vcppo.settings.added import with_added
from vcppo.settings.defaults import defaults_beside, defaults_of_model
from vcppo.settings.kinds import (
    KINDS,
    foreign,
    is_whole,
    layout,
    not_by_default,
    recorded_names,
    table_of,
    tables,
    without,
)
from vcppo.settings.methods import BUDGET, METHODS, SLOTS, agree, fills
from vcppo.settings.notes import Note
from vcppo.settings.plugin import PluginTaskSettings, faults, reads_with_a_model
from vcppo.settings.reading import read_json_settings, read_toml
from vcppo.settings.renamed import CURRENT, current_name, former_names, with_current_names
from vcppo.settings.run import UNFINISHED, RunSettings
from vcppo.settings.task import KNOWN
from vcppo.settings.unused import notes_without_effect, unused


@dataclass(frozen=True)
class Layer:
    """Settings from one place, as a tree."""

    source: str  # how a message calls the place
    tree: Mapping[str, Any]
    shared: bool = False  # meant for runs of several methods: what one of them would ignore may stand in it
    context: bool = False  # what is said after it may make it ignore what it says, which is then told and not refused


@dataclass(frozen=True)
class Resolved:
    """Settings, and what was decided on the way to them that no layer says."""

    settings: RunSettings
    gave_way: frozenset[str] = frozenset()  # settings of some layer that a method named after it has otherwise
    notes: tuple[Note, ...] = ()
    of_model: tuple[Note, ...] = ()  # defaults that hold because a model is given


def known_names() -> list[str]:
    """Every dotted setting name, in the order of declaration."""
    return list(layout())


def setting_type(name: str) -> tuple[Any, ...]:
    """The types a setting may have, literals as they are.

    >>> setting_type("pretrain.steps")
    (<class 'int'>, typing.Literal['converge'])
    """
    return layout()[table_of(name) or current_name(name)].types


def may_be_none(name: str) -> bool:
    """True if a setting may be None, which text calls `none`."""
    return NoneType in setting_type(name)


def nest(flat: Mapping[str, Any], source: str) -> dict[str, Any]:
    """{"gae.lambda_actor": 1} to {"gae": {"lambda_actor": 1}}; "none" is None where the setting may be None.

    Raises:
        ConfigError: a name is no setting.
    """
    known = {*known_names(), *CURRENT}
    values = {}
    for name, given in flat.items():
        if name not in known and table_of(name) is None:
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


def load_settings(
    config: Path | None = None, assignments: Iterable[str] = (), *, checkpoint: str | None = None
) -> RunSettings:
    """Return the settings of `load` without its notes."""
    return load(config, assignments, checkpoint=checkpoint).settings


def load(config: Path | None = None, assignments: Iterable[str] = (), *, checkpoint: str | None = None) -> Resolved:
    """Defaults, the method's settings, then a file, then `--set key=value` flags; later wins, validated once.

    Args:
        checkpoint: what is worked on, the model of a task that needs one unless the settings name another.
    """
    layers = [] if config is None else [file_layer(config)]
    flags = dict(parse_assignment(text) for text in assignments)
    layers.append(Layer("--set", nest(flags, "--set")))
    given = {name: value for layer in layers for name, value in flatten(layer.tree).items()}
    task = given.get("task.name")
    if checkpoint is not None and given.get("model.path") is None and (task == "maths" or reads_with_a_model(task)):
        layers.append(Layer("the command", nest({"model.path": checkpoint}, "the command")))
    return resolve(layers)


def file_layer(config: Path) -> Layer:
    """A TOML file of settings, or the JSON record of a run.

    What a record has as its method has it counts as not said, and the rest was judged when the run was made.

    Raises:
        ConfigError: it cannot be read.
    """
    if config.suffix == ".json":
        record = read_json_settings(config)
        return Layer(str(config), _differences(with_added(record) if is_whole(record) else record), shared=True)
    return Layer(str(config), read_toml(config), context=True)


def build_settings(layers: Sequence[Layer]) -> RunSettings:
    """Return the settings of `resolve` without its notes."""
    return resolve(layers).settings


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merge layers over the settings of the method they name, and validate; a mistake is told with its layer.

    What layers say of the slots of a method that a later one names gives way to it. What a layer of context says and a
    later one makes ignored is kept; both are told.

    Raises:
        ConfigError: a name is unknown, a value out of range, settings do not go together, or one of them, in a layer
            that is not shared, would be ignored.
    """
    notes = [_former_name(name, layer) for layer in layers for name in former_names(layer.tree)]
    layers = [replace(layer, tree=with_current_names(layer.tree)) for layer in layers]
    merged, overlaps = _merged(layers)
    settings = _validated(merged, layers)
    if isinstance(settings.task, PluginTaskSettings) and any(layer.tree and not layer.shared for layer in layers):
        _refuse_plugin(settings, settings.task, layers)
    notes += [slot.note() for slot in overlaps if unused(settings, slot.name) is None]
    for number, layer in enumerate(layers):
        if not layer.shared:
            notes += _refuse_or_note_unused(settings, layers, number)
            notes += notes_without_effect(settings, flatten(layer.tree), layer.source)
    given = {name for layer in layers for name in flatten(layer.tree)}
    return Resolved(
        settings,
        frozenset(slot.name for slot in overlaps if slot.gives_way),
        tuple(notes),
        tuple(_model_notes(settings, given)),
    )


def override(base: RunSettings, overrides: Mapping[str, Any], *, source: str = "overrides") -> RunSettings:
    """`base` with dotted names replaced, validated anew. Another method keeps only what base had set beside its own.

    Raises:
        ConfigError: as `build_settings`; the message names `source`.
    """
    differences = _differences(base.model_dump(mode="json"))
    return build_settings([Layer("base", differences, shared=True), Layer(source, nest(overrides, source))])


def method_tree(method: Any, source: str) -> dict[str, Any]:
    """A method's settings as a tree, its name included.

    Raises:
        ConfigError: there is no such method.
    """
    if not isinstance(method, str) or method not in METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(METHODS)}"
        raise ConfigError(f"method = {method!r} (from {source}): no such method; {hint}")
    return {"arm": method, "method": method, **nest(METHODS[method].settings, f"method {method}")}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"gae": {"gamma": 1}} to {"gae.gamma": 1}, the inverse of `nest`; a table of any names is one value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        section = isinstance(value, Mapping) and prefix + name not in tables()
        flat |= flatten(value, f"{prefix}{name}.") if section else {prefix + name: value}
    return flat


def _differences(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree's settings that differ from its method's and from defaults that other settings decide."""
    method = tree.get("method", RunSettings.model_fields["method"].default)
    by_method = flatten(RunSettings.model_validate(method_tree(method, "its record")).model_dump(mode="json"))
    by_method |= {**defaults_beside(tree), **METHODS[method].settings}
    different = {
        name: value for name, value in flatten(tree).items() if name not in by_method or by_method[name] != value
    }
    return _nested({**different, "method": method})


@dataclass(frozen=True)
class _Slot:
    """A layer's value for a slot of the method that a later layer names, other than that method's."""

    name: str
    value: Any
    source: str
    method: str
    wanted: Any
    gives_way: bool  # else it stays: a budget, or a slot that the method leaves to the defaults

    def note(self) -> Note:
        fate = "gives way to" if self.gives_way else "stays, instead of"
        advice = ", named after it; say it with the method or later to keep it" if self.gives_way else ""
        before = f"{self.name} = {self.value!r} (from {self.source}) {fate} {self.wanted!r} of method "
        return Note(before, self.method, advice)


def _merged(layers: Sequence[Layer]) -> tuple[dict[str, Any], list[_Slot]]:
    """One tree of all layers over the method they name, and the slots in which method and earlier layers meet."""
    naming = [number for number, layer in enumerate(layers) if "method" in layer.tree]
    at = naming[-1] if naming else 0
    method = layers[at].tree["method"] if naming else RunSettings.model_fields["method"].default
    merged = method_tree(method, layers[at].source if naming else "default")
    overlaps = list(_overlaps(method, merged, layers, at)) if at else []
    yielding = {slot.name for slot in overlaps if slot.gives_way}
    for number, layer in enumerate(layers):
        merged = _merge(merged, layer.tree if number >= at else _without(layer.tree, yielding))
    return merged, overlaps


def _overlaps(method: str, tree: Mapping[str, Any], layers: Sequence[Layer], at: int) -> Iterator[_Slot]:
    """Yield slots on which layers before the one at `at`, which names the method, have the last word and disagree."""
    pure = RunSettings.model_validate(tree)
    whole, filled = flatten(pure.model_dump(mode="json")), fills(method)
    last = {name: number for number, layer in enumerate(layers) for name in flatten(layer.tree)}
    for number, layer in enumerate(layers[:at]):
        for name, value in flatten(layer.tree).items():
            if name in SLOTS and last[name] == number and not agree(name, value, whole[name]):
                gives_way = name in filled and unused(pure, name) is None
                if gives_way or name not in BUDGET or name in METHODS[method].settings:
                    yield _Slot(name, value, layer.source, method, whole[name], gives_way)


def _without(tree: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    return _nested({name: value for name, value in flatten(tree).items() if name not in names})


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[leaf] = dict(value) if isinstance(value, Mapping) else value
    return tree


def _refuse_or_note_unused(settings: RunSettings, layers: Sequence[Layer], number: int) -> Iterator[Note]:
    """Yield notes of settings of a layer that a later one makes ignored, where it may; refuse any other ignored one."""
    layer = layers[number]
    flat = flatten(layer.tree)
    whole_record = flat.keys() >= recorded_names()
    ignored = {} if whole_record else {name: reason for name in flat if (reason := unused(settings, name)) is not None}
    if not ignored:
        return
    there = _as_it_stands(layers[: number + 1]) if layer.context else settings
    for name, reason in ignored.items():
        if unused(there, name) is not None:
            raise ConfigError(f"{name} = {flat[name]!r} (from {layer.source}): it would be ignored, for {reason}")
        yield Note("", name, f" (from {layer.source}): not used here, for {reason}")


def _as_it_stands(layers: Sequence[Layer]) -> RunSettings:
    """Return the settings of layers that others were put on, even if they make no run without those."""
    return _validated(_merged(layers)[0], layers, context=UNFINISHED)


def _validated(tree: Mapping[str, Any], layers: Sequence[Layer], *, context: str | None = None) -> RunSettings:
    """The settings of a tree; what it says of other kinds than its own must be valid, and is kept beside them."""
    left_out = list(foreign(tree))
    mistakes: list[Any] = []
    valid: list[tuple[str, str, Any]] = []
    for section, leaf, value in left_out:
        kinds = KINDS[section]
        word = kinds.with_setting(leaf)[0]
        try:
            owner = kinds.all_models[word].model_validate({kinds.by: word, leaf: value})
        except ValidationError as error:
            mistakes += [{**detail, "loc": (section, word, *detail["loc"])} for detail in error.errors()]
            continue
        valid.append((section, leaf, owner.model_dump(mode="json", include={leaf})[leaf]))
    try:
        settings = RunSettings.model_validate(without(tree, left_out), context=context)
    except ValidationError as error:
        mistakes = [*error.errors(), *mistakes]
    if mistakes:
        raise ConfigError("; ".join(_explain(detail, layers) for detail in mistakes)) from None
    return settings.beside(not_by_default(valid))


def _refuse_plugin(settings: RunSettings, task: PluginTaskSettings, layers: Sequence[Layer]) -> None:
    problems = faults(
        task,
        model=settings.model.path,
        problems=settings.evaluation.problems,
        source=lambda name: _source(name.split("."), layers),
    )
    if reason := "; ".join(problems):
        raise ConfigError(reason)


def _model_notes(settings: RunSettings, given: Set[str]) -> Iterator[Note]:
    if settings.model.path is None:
        return
    for name, value in defaults_of_model(settings.model_dump(mode="json")).items():
        if name not in given and unused(settings, name) is None:
            yield Note(f"model.path = {settings.model.path} is given, so unless set ", f"{name} = {value}")


def _former_name(name: str, layer: Layer) -> Note:
    return Note("", name, f" (from {layer.source}) is called {current_name(name)} now")


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
    kinds = KINDS.get(location[0]) if location else None
    if kinds is not None and kinds.outside is not None and location[1:2] == [KNOWN]:
        del location[1]
    if kinds is not None and detail["type"] == "union_tag_invalid":
        *others, last = (f"'{word}'" for word in kinds.all_models)
        location, value = [kinds.section, kinds.by], detail["input"][kinds.by]
        detail = {"type": "", "input": value, "msg": f"input should be {', '.join(others)} or {last}"}
    elif kinds is not None and len(location) > 1:
        del location[1]  # the kind, which pydantic puts between
    known = known_names()
    while len(location) > 1 and ".".join(location) not in known and detail["type"] != "extra_forbidden":
        location.pop()  # pydantic appends the union's member
    name = ".".join(location)
    source = _source(location, layers)
    if detail["type"] == "extra_forbidden":
        return f"{name} (from {source}): no such setting{_suggestion(name)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return str(message)
    return f"{name} = {detail['input']!r} (from {source}): {message[0].lower()}{message[1:]}"


def _source(location: Sequence[str], layers: Sequence[Layer]) -> str:
    """Name the layer that has the last word on a setting."""
    holding = (layer.source for layer in reversed(layers) if _holds(layer.tree, location))
    return next(holding, "the combination of settings")


def _holds(tree: Any, location: Sequence[str]) -> bool:
    for part in location:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True
