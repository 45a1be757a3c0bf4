"""Sections that have a kind: which setting decides it, which settings belong to which kind, and one flat layout of all.

`policy.loss` decides of which kind the section `policy` is; `policy.dpo_beta` belongs to the kind `dpo` alone. As
objects, settings have what belongs to their kinds and nothing else. As JSON they have the settings of other kinds too,
at their defaults: files, addresses and digests do not change their shape with a kind. Kinds of later days are apart
(`in_every_record` is False): records of other kinds know nothing of them, and are what they were before.
"""

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, Discriminator
from pydantic.fields import FieldInfo

from vcppo.settings.added import ADDED
from vcppo.settings.base import Settings
from vcppo.settings.plugin import OUTSIDE
from vcppo.settings.sections import RunSections


@dataclass(frozen=True)
class Kinds:
    """One such section."""

    section: str
    by: str  # the setting of it that decides
    models: Mapping[str, type[Settings]]  # by the words that `by` may be
    default: str
    outside: type[Settings] | None = None  # the kind of every `package.module:Class`, where there may be such

    @property
    def all_models(self) -> Mapping[str, type[Settings]]:
        """The models by word, with that of a class from outside."""
        return self.models if self.outside is None else {**self.models, OUTSIDE: self.outside}

    @property
    def name(self) -> str:
        """The dotted name of the setting that decides."""
        return f"{self.section}.{self.by}"

    @functools.cached_property
    def _with_setting(self) -> Mapping[str, tuple[str, ...]]:
        leaves = dict.fromkeys(leaf for model in self.all_models.values() for leaf in model.model_fields)
        models = self.all_models.items()
        return {leaf: tuple(word for word, model in models if leaf in model.model_fields) for leaf in leaves}

    def with_setting(self, leaf: str) -> tuple[str, ...]:
        """The kinds that have a setting or a subsection."""
        return self._with_setting.get(leaf, ())

    def everywhere(self, leaf: str) -> bool:
        """True if records of all kinds have a setting or a subsection."""
        return any(self.all_models[word].in_every_record for word in self.with_setting(leaf))

    def may_have(self, section: Any, leaf: str) -> bool:
        """True if a section as a tree is of a kind that has a setting, or of none, which validation will tell."""
        word = self.kind_of(section) if isinstance(section, Mapping) else None
        return word is None or word in self.with_setting(leaf)

    def kind_of(self, section: Mapping[str, Any]) -> str | None:
        """The kind of a section as a tree; None if the word is none of them."""
        return self.word(section.get(self.by, self.default))

    def word(self, value: Any) -> str | None:
        """The kind that a value of `by` names; None if it names none."""
        if not isinstance(value, str):
            return None
        if self.outside is not None and ":" in value:
            return OUTSIDE
        return value if value in self.models else None


@dataclass(frozen=True)
class Setting:
    """One setting, by its dotted name."""

    name: str
    types: tuple[Any, ...]  # that it may have, literals as they are
    default: Any
    description: str
    about: str  # its section
    kinds: tuple[str, ...] = ()  # of its section that have it; empty: all


def _kinds() -> Iterator[Kinds]:
    for section, field in RunSections.model_fields.items():
        by, union, outside = field.discriminator, field.annotation, None
        if any(
            isinstance(one, Discriminator) for one in field.metadata
        ):  # the known ones, themselves told apart by a word, or one from outside
            (union, known, _), (outside, _) = map(typing.get_args, typing.get_args(union))
            by = known.discriminator
        if isinstance(by, str):
            models = {
                word: model
                for model in typing.get_args(union)
                for word in typing.get_args(model.model_fields[by].annotation)
            }
            yield Kinds(section, by, models, getattr(field.default, by), outside)


KINDS: Mapping[str, Kinds] = {kinds.section: kinds for kinds in _kinds()}


@functools.cache
def layout() -> Mapping[str, Setting]:
    """Every setting of every kind by its dotted name, in the order of declaration."""
    return {setting.name: setting for setting in _settings(RunSections, "")}


def _settings(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for leaf, field in model.model_fields.items():
        name, kind = prefix + leaf, field.annotation
        if not prefix and leaf in KINDS:
            yield from _settings_of(KINDS[leaf])
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _settings(kind, f"{name}.")
        else:
            about = (model.__doc__ or "").splitlines()[0]
            yield Setting(name, _types(field), field.default, field.description or "", about)


def _settings_of(kinds: Kinds) -> Iterator[Setting]:
    merged: dict[str, Setting] = {}
    for word, model in kinds.all_models.items():
        for setting in _settings(model, f"{kinds.section}."):
            known = merged.get(setting.name, setting)
            merged[setting.name] = replace(known, kinds=(*known.kinds, word))
    for name, setting in merged.items():
        if name == kinds.name:
            words = Literal[tuple(kinds.models)]  # type: ignore[valid-type]
            types = (words,) if kinds.outside is None else (words, str)
            yield replace(setting, types=types, default=kinds.default, kinds=())
        else:
            yield replace(setting, kinds=() if len(setting.kinds) == len(kinds.all_models) else setting.kinds)


def _types(field: FieldInfo) -> tuple[Any, ...]:
    kind = field.annotation
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


@functools.cache
def tables() -> frozenset[str]:
    """The settings that are tables of any names: what is in them is no setting of ours."""
    return frozenset(name for name, setting in layout().items() if typing.get_origin(setting.types[0]) is dict)


def table_of(name: str) -> str | None:
    """The table that a dotted name lies in; None if it lies in none."""
    return next((table for table in tables() if name.startswith(f"{table}.")), None)


def other_kind(sections: RunSections, name: str) -> str | None:
    """Say why a setting is none of its section's kind, and of which it is; None if it is."""
    section, _, rest = name.partition(".")
    kinds = KINDS.get(section)
    if kinds is None:
        return None
    owners, word = kinds.with_setting(rest.split(".")[0]), getattr(getattr(sections, section), kinds.by)
    if kinds.word(word) in owners:
        return None
    *others, last = owners
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"{kinds.name} = {word} does not read it; {kinds.name} = {listed} does"


def foreign(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(section, name in it, value) of what a tree says of settings that are of another kind than its section."""
    for section, kinds in KINDS.items():
        branch = tree.get(section)
        if not isinstance(branch, Mapping) or (word := kinds.kind_of(branch)) is None:
            continue  # a mistake that validation will tell
        for leaf, value in branch.items():
            owners = kinds.with_setting(leaf)
            if owners and word not in owners:
                yield section, leaf, value


def without(tree: Mapping[str, Any], left_out: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """A tree without some names of its sections."""
    rest = dict(tree)
    for section, leaf, _ in left_out:
        rest[section] = {name: value for name, value in rest[section].items() if name != leaf}
    return rest


def with_kinds(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree that names the kind of each section, and says of other kinds only what is not as by default.

    The whole record of a run says of all of them what is as by default.
    """
    complete = dict(tree)
    for section, kinds in KINDS.items():
        branch = complete.get(section, {})
        if isinstance(branch, BaseModel):  # what was set of it, for other settings may decide the rest
            complete[section] = {**branch.model_dump(exclude_unset=True), kinds.by: getattr(branch, kinds.by)}
        elif isinstance(branch, Mapping):
            complete[section] = {kinds.by: kinds.default, **branch}
    defaults = default_tree()
    return without(complete, [one for one in foreign(complete) if one[2] == defaults[one[0]][one[1]]])


def not_by_default(left_out: Iterable[tuple[str, str, Any]]) -> dict[str, dict[str, Any]]:
    """Return settings of other kinds that differ from their defaults, by section."""
    rest: dict[str, dict[str, Any]] = {}
    for section, leaf, value in left_out:
        if value != default_tree()[section][leaf]:
            rest.setdefault(section, {})[leaf] = value
    return rest


def is_whole(tree: Mapping[str, Any]) -> bool:
    """True if a tree has the settings that are in every record, as the record of a run has; `ADDED` came later."""
    for section in KINDS:
        branch, known = tree.get(section), {f"{section}.{leaf}" for leaf in _everywhere(section)}
        if not isinstance(branch, Mapping) or not known - ADDED.keys() <= {f"{section}.{leaf}" for leaf in branch}:
            return False
    return True


def flat_layout(tree: Mapping[str, Any], of_other_kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON of some sections with the settings of the kinds not chosen, as a layer had them or else as by default.

    Every record, address and digest is made of this. It is the layout of the time when a section had the settings of
    all its kinds, so that they are what they were; of kinds that came after it, what a layer said stays out of it.
    """
    flat = dict(tree)
    for section in flat.keys() & KINDS.keys():
        others = dict(_everywhere(section))
        others |= {leaf: value for leaf, value in of_other_kinds.get(section, {}).items() if leaf in others}
        chosen = flat[section]
        not_chosen = {leaf: chosen[leaf] if leaf in chosen else _copied(value) for leaf, value in others.items()}
        flat[section] = {**not_chosen, **chosen}
    return flat


def _copied(value: Any) -> Any:
    """Return JSON whose tables and lists may be changed; `copy.deepcopy` takes ten times as long."""
    if isinstance(value, dict):
        return {name: _copied(one) for name, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


@functools.cache
def recorded_names() -> frozenset[str]:
    """The dotted names of the settings that are in every record."""
    foreign_to_some = {name: name.partition(".") for name, setting in layout().items() if setting.kinds}
    apart = {name for name, (section, _, leaf) in foreign_to_some.items() if not _is_everywhere(section, leaf)}
    return frozenset(layout().keys() - apart)


def _is_everywhere(section: str, name: str) -> bool:
    return KINDS[section].everywhere(name.partition(".")[0])


@functools.cache
def _everywhere(section: str) -> Mapping[str, Any]:
    """The defaults of a section that are in every record."""
    return {leaf: value for leaf, value in default_tree()[section].items() if KINDS[section].everywhere(leaf)}


@functools.cache
def default_tree() -> Mapping[str, Any]:
    """The default of every setting of every kind."""
    tree: dict[str, Any] = {}
    for name, setting in layout().items():
        *sections, leaf = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[leaf] = setting.default
    return tree
