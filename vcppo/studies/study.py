"""Studies: a TOML file of what is varied, and why, becomes a list of runs, each validated before any starts."""

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from vcppo.errors import ConfigError
from vcppo.settings.base import Settings
from vcppo.settings.loading import (
    Layer,
    flatten,
    known_names,
    may_be_none,
    nest,
    resolve,
    setting_type,
)
from vcppo.settings.notes import lines
from vcppo.settings.reading import read_toml
from vcppo.settings.renamed import current_name
from vcppo.settings.search_space import Dimension, misfits
from vcppo.studies.cells import Cell, as_name, at, cell_name, no_use, refuse_twins, set_for_cell, shortened, values_of
from vcppo.studies.given import given_options
from vcppo.studies.seeds import Numbers, chosen, refused
from vcppo.system.shipped import shipped

Model = TypeVar("Model", bound=Settings)

SAFE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$"
SET_BY_STUDY = {"arm": "an arm's `name`", "seed": "`seeds` and `first_seed`"}
SET_BY_BASES = {"base_seed": "`bases` and `first_base`"}  # of a study that gives them; else it is a setting as others
GONE = {"label": "figures call an arm by its name; expected a comment"}  # keys that files of before may have


class ArmSettings(Settings):
    """One configuration with a name of its own."""

    name: str = Field(pattern=SAFE_NAME, description="in tables, figures and folders")
    set: dict[str, Any] = Field({}, description="dotted settings that make this arm what it is")
    grid: dict[str, Any] = Field({}, description="lists of values that this arm alone goes through, beside [grid]")


class PrunerSettings(Settings):
    """Pruning of trials that do worse than their predecessors."""

    kind: Literal["median", "successive-halving"] = Field("median", description="see vcppo/studies/trials.py")
    startup_trials: int = Field(4, ge=0, description="trials that run to their end before any is judged (median)")
    warmup_steps: int = Field(10, ge=0, description="RL iterations before a trial is judged")
    interval_steps: int = Field(5, ge=1, description="RL iterations between judgements")


class SearchSettings(Settings):
    """Optuna proposes each configuration; it is scored by the mean of a result over seeds."""

    trials: int = Field(20, ge=1, description="configurations tried")
    sampler: Literal["tpe", "random"] = Field("tpe", description="who proposes")
    startup_trials: int = Field(8, ge=0, description="random proposals before `tpe` uses what it has seen")
    sampler_seed: int = Field(0, ge=0, description="of the proposals")
    objective: str = Field("final_accuracy", description="name of the result that scores a run")
    direction: Literal["maximize", "minimize"] = Field("maximize", description="which way is better")
    space: dict[str, Any] = Field(description="dotted setting -> Dimension", min_length=1)
    pruner: PrunerSettings | None = Field(None, description="by default every trial runs to its end")


class Study(Settings):
    """A question, and the runs that answer it: arms x grid x bases x seeds, or a search."""

    name: str = Field(pattern=SAFE_NAME, max_length=60, description="of the folder under DIR/studies")
    title: str = Field(min_length=1, description="one line")
    why: str = Field("", description="the question, and the table or figure that answers it")
    seeds: Numbers = Field(2, description="how many, from first_seed on; or which")
    first_seed: int = Field(0, ge=0, description="where a count of seeds begins")
    bases: Numbers | None = Field(
        None, description="how many base seeds, from first_base on, or which; each with all seeds. By default one base"
    )
    first_base: int = Field(0, ge=0, description="where a count of bases begins")
    base: dict[str, Any] = Field({}, description="dotted settings common to every run")
    arms: tuple[ArmSettings, ...] = ()
    grid: dict[str, Any] = Field({}, description="dotted setting -> list of values; every combination runs")
    search: SearchSettings | None = None
    _cells: dict[Any, Any] = PrivateAttr(default_factory=dict)  # laid out so far, by seeds: (study, cells)
    _on_base: tuple[Layer, ...] = PrivateAttr(())  # what a command gives beside the file, over its [base]

    @field_validator("arms", mode="before")
    @classmethod
    def _has_tables(cls, arms: Any) -> Any:
        if isinstance(arms, Mapping):
            raise ValueError("[arms] is one table; expected [[arms]], with two brackets, for each arm")
        return arms

    @model_validator(mode="after")
    def _is_a_study(self) -> Self:
        if self.search is not None and (self.arms or self.grid):
            raise ValueError("[search] beside [[arms]] or [grid]: a study is one or the other")
        if self.search is None and not self.arms and not self.grid:
            raise ValueError("nothing is varied: expected [[arms]], [grid] or [search]")
        for what, numbers in (("seeds", self.seeds), ("bases", self.bases)):
            if numbers is not None and (reason := refused(numbers)):
                raise ValueError(f"{what} = {numbers}: {reason}")
        for name, number in _counted(arm.name for arm in self.arms):
            if number > 1:
                raise ValueError(f"{number} arms are named {name}: expected a name each")
        return self

    @property
    def objective(self) -> str:
        """The result that scores a run's trial; without it a run has failed."""
        return self.search.objective if self.search is not None else "final_accuracy"

    @property
    def sets(self) -> dict[str, str]:
        """The settings that no file or flag may give, since the study counts through them: name -> by what."""
        return SET_BY_STUDY if self.bases is None else SET_BY_STUDY | SET_BY_BASES

    def seed_list(self, count: int | None = None, first: int | None = None) -> tuple[int, ...]:
        """Return the seeds of the file, or `count` of them, or a count from another first seed on.

        Raises:
            ConfigError: the file lists seeds, fewer than requested.
        """
        return chosen(self.seeds, self.first_seed, count, first, study=self.name, what="seeds")

    def base_list(self) -> tuple[int | None, ...]:
        """Return the base seeds that cells are counted through; (None,) where `base_seed` stays as it is set."""
        if self.bases is None:
            return (None,)
        return chosen(self.bases, self.first_base, None, None, study=self.name, what="bases")

    def with_bases(self, count: int | None = None, first: int | None = None) -> "Study":
        """Return the study with so many bases, or with a count from another first one on; itself if neither is given.

        Raises:
            ConfigError: the file lists bases, fewer than requested.
        """
        if count is None and first is None:
            return self
        bases = chosen(self.bases or 1, self.first_base, count, first, study=self.name, what="bases")
        return self.model_copy(update={"bases": bases})

    def with_base(self, *layers: Layer) -> "Study":
        """Return the study with further settings common to every run, over its [base], the later over the earlier."""
        for layer in layers:
            self._refuse_set_by_study(flatten(layer.tree), layer.source)
        layers = tuple(layer for layer in layers if layer.tree)
        if not layers:
            return self
        study = self.model_copy()
        study._on_base = (*self._on_base, *(replace(layer, shared=True) for layer in layers))
        return study

    @property
    def given(self) -> str:
        """Options of the command line that `with_base` has been given, as others may see them; empty without any."""
        return given_options(self._on_base)

    def cells(self, seeds: Sequence[int] | None = None) -> list[Cell]:
        """Return every run of an arms or grid study, all arms of a seed before the next seed, all seeds of a base.

        Raises:
            ConfigError: a setting is unknown or out of range, or two runs would be one.
        """
        if self.search is not None:
            raise ConfigError(f"study {self.name} is a search: its runs are proposed one after another")
        key = (id(self), self.seed_list() if seeds is None else tuple(seeds))  # copies share the dict, not their cells
        if key not in self._cells:
            self._cells[key] = (self, self._laid_out(key[1]))
        return list(self._cells[key][1])

    def _laid_out(self, seeds: Sequence[int]) -> list[Cell]:
        """Resolve each configuration once, whatever the number of its bases and seeds."""
        swept_names, bases = self.swept_names(), self.base_list()
        self._check_free(_dotted(self.grid), "[grid]")
        if not seeds:
            return []
        first = [
            self._cell(arm, point, bases[0], seeds[0], swept_names)
            for arm in self.arms or (None,)
            for point in self._grid_points(arm)
        ]
        cells = [at(cell, base, seed) for base, seed in itertools.product(bases, seeds) for cell in first]
        refuse_twins(self.name, first, cells)
        self._refuse_unused_base(first)
        return cells

    def trial_cells(self, trial: str, params: Mapping[str, Any], seeds: Sequence[int]) -> list[Cell]:
        """Return the runs that score one configuration of a search, one per base and seed.

        Raises:
            ConfigError: the configuration is no valid one.
        """
        cells = []
        for base, seed in itertools.product(self.base_list(), seeds):
            layers = [*self._base_layers(), self._layer(f"study {self.name}, {trial}", params)]
            resolved = resolve([*layers, set_for_cell(trial, base, seed)])
            name = cell_name(trial, base, seed)
            cells.append(Cell(name, trial, seed, values_of(resolved.settings, params), resolved))
        return cells

    def space(self) -> dict[str, Dimension]:
        """Return the search space, dimension by dimension.

        Raises:
            ConfigError: a dimension is neither range nor choices, or its setting cannot take it so.
        """
        assert self.search is not None
        known, space = set(known_names()), {}
        for name, tree in _dotted(self.search.space, stop=set(Dimension.model_fields)).items():
            where = f"study {self.name}, [search.space] {name}"
            dimension = _parse(Dimension, tree if isinstance(tree, dict) else {"choices": tree}, where)
            if dimension.choices is not None and name in known and may_be_none(name):
                choices = tuple(None if choice == "none" else choice for choice in dimension.choices)
                dimension = dimension.model_copy(update={"choices": choices})
            for reason in misfits(dimension, setting_type(name)) if current_name(name) in known else ():
                raise ConfigError(f"{name} (from study {self.name}, [search.space]): {reason}")
            space[name] = dimension
        self._check_free(space, "[search.space]")
        return space

    def swept_names(self) -> list[str]:
        """Return the dotted settings that differ, or may differ, between the runs, in the file's order."""
        if self.search is not None:
            return list(self.space())
        named = [name for arm in self.arms for name in _dotted(arm.set)]
        gone_through = [name for arm in self.arms for name in _dotted(arm.grid)]
        return list(dict.fromkeys([*named, *_dotted(self.grid), *gone_through]))

    def validate_all(self) -> Self:
        """Build every run, and for a search the ends of every dimension, so that a bad study never starts.

        Raises:
            ConfigError: the first run that is not valid.
        """
        self.representative_cells(self.seed_list())
        return self

    def representative_cells(self, seeds: Sequence[int]) -> list[Cell]:
        """Return the cells of a grid; of a search one for each end of each dimension, and one at all upper ends.

        Raises:
            ConfigError: one of them is not valid.
        """
        if self.search is None:
            return self.cells(seeds)
        extremes = {name: dimension.extremes() for name, dimension in self.space().items()}
        lowest = {name: values[0] for name, values in extremes.items()}
        corners = [lowest | {name: value} for name, values in extremes.items() for value in values]
        corners.append({name: values[-1] for name, values in extremes.items()})
        return [cell for corner in corners for cell in self.trial_cells("[search.space]", corner, [0])]

    def notes(self, seeds: Sequence[int]) -> list[str]:
        """Return what was decided that neither the study nor the command gives, one line per kind."""
        cells = self.representative_cells(seeds)
        return lines(note for cell in cells for note in (*cell.resolved.notes, *cell.resolved.of_model))

    def _cell(
        self, arm: ArmSettings | None, point: dict[str, Any], base: int | None, seed: int, swept_names: list[str]
    ) -> Cell:
        layers = self._base_layers()
        if arm is not None:
            layers.append(self._layer(f"study {self.name}, arm {arm.name}", _dotted(arm.set)))
        layers.append(self._layer(f"study {self.name}, [grid]", point))
        resolved = resolve([*layers, set_for_cell("named below", base, seed)])
        values = values_of(resolved.settings, [*point, *swept_names])
        points = [f"{name}={as_name(values[name])}" for name in point]
        arm_name = shortened(",".join([arm.name, *points] if arm is not None else points))
        resolved = replace(resolved, settings=resolved.settings.model_copy(update={"arm": arm_name}))
        swept = {name: values[name] for name in swept_names}
        return Cell(cell_name(arm_name, base, seed), arm_name, seed, swept, resolved)

    def _refuse_unused_base(self, cells: Sequence[Cell]) -> None:
        """Refuse a setting of the base that every run would ignore; one that some arm uses is no mistake."""
        for layer in self._base_layers():
            for name in flatten(layer.tree):
                reasons = [no_use(cell, name) for cell in cells]
                if cells and all(reasons):
                    raise ConfigError(f"{name} (from {layer.source}): every run would ignore it: {reasons[0]}")

    def _base_layers(self) -> list[Layer]:
        for layer in self._on_base:  # bases may have been given after them
            self._refuse_set_by_study(flatten(layer.tree), layer.source)
        return [self._layer(f"study {self.name}, [base]", _dotted(self.base), shared=True), *self._on_base]

    def _layer(self, source: str, dotted: Mapping[str, Any], *, shared: bool = False) -> Layer:
        """Return dotted settings as a layer of `build_settings`; refuse those that the study sets itself."""
        self._refuse_set_by_study(dotted, source)
        return Layer(source, nest(dotted, source), shared)

    def _refuse_set_by_study(self, names: Iterable[str], source: str) -> None:
        sets = self.sets
        for name in names:
            if name in sets:
                raise ConfigError(f"{name} (from {source}): a study sets it by {sets[name]}")

    def _grid_points(self, arm: ArmSettings | None) -> list[dict[str, Any]]:
        grid = _dotted(self.grid)
        if arm is not None:
            arm_grid, where = _dotted(arm.grid), f"the grid of arm {arm.name}"
            self._check_free(arm_grid, where, arms=(arm,))
            for name in arm_grid.keys() & grid.keys():
                raise ConfigError(f"{name} (from study {self.name}): said in [grid] and in {where}; expected once")
            grid |= arm_grid
        for name, values in grid.items():
            if not isinstance(values, list) or not values:
                raise ConfigError(f"{name} = {values!r} (from study {self.name}, [grid]): expected a list of values")
        return [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]

    def _check_free(self, names: Iterable[str], where: str, arms: Sequence[ArmSettings] | None = None) -> None:
        """Refuse a setting that is given in two places: one of the two would never hold."""
        elsewhere = dict.fromkeys(_dotted(self.base), "[base]")
        elsewhere |= {name: layer.source for layer in self._on_base for name in flatten(layer.tree)}
        elsewhere |= {name: f"arm {arm.name}" for arm in arms or self.arms for name in _dotted(arm.set)}
        for name in names:
            if name in elsewhere:
                raise ConfigError(
                    f"{name} (from study {self.name}): said in {elsewhere[name]} and in {where}; expected once"
                )


def load_study(name_or_path: str) -> Study:
    """Load a study by its file, or by its name among ablations/*.toml of this folder, then among those of vcppo.

    Raises:
        ConfigError: there is none, or it is not a valid study.
    """
    if name_or_path.endswith(".toml"):
        return parse_study(read_toml(Path(name_or_path)), name_or_path)
    folders = [Path("ablations"), shipped("ablations")]
    for folder in folders:
        file = folder / f"{name_or_path}.toml"
        if file.is_file():
            return parse_study(read_toml(file), str(file))
    known = sorted({file.stem for folder in folders for file in folder.glob("*.toml")})
    close = difflib.get_close_matches(name_or_path, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"
    raise ConfigError(f"study {name_or_path}: no ablations/{name_or_path}.toml; {hint}")


def parse_study(tree: Mapping[str, Any], source: str) -> Study:
    """Return a study from the content of its file, every run of it valid.

    Raises:
        ConfigError: what is wrong, where in `source`, and what was wanted.
    """
    study = _parse(Study, tree, source)
    try:
        return study.validate_all()
    except ConfigError as error:  # of a search there is no cell whose name would lead to the line
        raise ConfigError(f"{source}: {error}" if study.search is not None else str(error)) from None


def _parse(model: type[Model], tree: Mapping[str, Any], source: str) -> Model:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(map(_explain, error.errors()))}") from None


def _explain(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"] if part not in ("int", "tuple[int, ...]"))
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"{where} is missing"
    if detail["type"] == "extra_forbidden":
        models = (Study, ArmSettings, SearchSettings, PrunerSettings, Dimension)
        key = where.split(".")[-1]
        close = difflib.get_close_matches(key, [known for model in models for known in model.model_fields], n=1)
        hint = GONE.get(key) or (f"did you mean {close[0]}?" if close else "")
        return f"{where}: no such key" + (f"; {hint}" if hint else "")
    return f"{where} = {detail['input']!r}: {message[0].lower()}{message[1:]}" if where else message


def _dotted(tree: Mapping[str, Any], prefix: str = "", stop: set[str] | None = None) -> dict[str, Any]:
    """Return dotted names, whether the file has "gae.gamma" = 1, gae.gamma = 1 or gae = { gamma = 1 }.

    A table with a key that is in `stop` is a value, not a section.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        section = isinstance(value, Mapping) and value and not (stop and stop & set(value))
        flat |= _dotted(value, f"{prefix}{key}.", stop) if section else {prefix + key: value}
    return flat


def _counted(names: Iterable[str]) -> list[tuple[str, int]]:
    return list(Counter(names).items())
