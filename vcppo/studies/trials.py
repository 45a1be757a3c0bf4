"""Optuna, by ask and tell from the one process of a study: a cell of a grid is a trial, so is a search's proposal.

A cell's state is that of its folder; a trial is its image for Optuna, its samplers and its dashboard.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from vcppo.errors import ConfigError, StudyError
from vcppo.settings.digests import digest
from vcppo.settings.loading import setting_type
from vcppo.settings.search_space import Dimension
from vcppo.studies.cells import Cell
from vcppo.studies.study import PrunerSettings, SearchSettings, Study
from vcppo.system.files import rename_aside
from vcppo.system.redaction import redacted, remember
from vcppo.system.sqlite_files import making, sqlite_file

LARGEST_SEED = 2**53  # a storage keeps numbers as floats
LOST = "lost"  # an attribute of a trial that `enter_lost` added
BASE = "base_seed"  # a parameter of the trials of a study that gives bases


class Scoreboard:
    """The Optuna study behind a study: names in, trial numbers kept inside.

    A trial's name is that of its cell in a grid, `trial-0007` in a search; a trial that is run again after it
    failed is a new one of the same name, and the latest of a name counts.
    """

    def __init__(
        self, storage: BaseStorage, optuna_name: str, study: Study, space: dict[str, BaseDistribution]
    ) -> None:
        self.search, self.space, self.storage = study.search, space, storage
        self.optuna = optuna.create_study(
            storage=storage,
            study_name=optuna_name,
            direction=study.search.direction if study.search else "maximize",
            sampler=_sampler(study.search, 0),
            pruner=_pruner(study.search.pruner if study.search else None),
            load_if_exists=True,
        )
        self._id = storage.get_study_id_from_name(optuna_name)
        self._live: dict[str, optuna.Trial] = {}
        self._numbers: dict[str, int] = {}
        for trial in self.optuna.get_trials(deepcopy=False):
            self._numbers[_name(trial)] = trial.number

    def names(self) -> list[str]:
        """Return the names of all trials, oldest first."""
        return list(self._numbers)

    def trial(self, name: str) -> FrozenTrial | None:
        """Return the latest trial of that name, as stored."""
        return self.storage.get_trial(self._trial_id(name)) if name in self._numbers else None

    def enqueue(self, name: str, params: Mapping[str, Any]) -> None:
        """Add a waiting trial with these parameters, not proposed by a sampler."""
        self.optuna.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=dict(params),
                distributions={key: self.space[key] for key in params},
                user_attrs={"name": name},
            )
        )
        self._numbers[name] = self.optuna.get_trials(deepcopy=False)[-1].number
        self._live.pop(name, None)

    def enter_lost(self, name: str) -> None:
        """Add a failed trial in place of one of which nothing is left."""
        attributes = {"name": name, "error": "its parameters are lost with a damaged journal", LOST: True}
        self.optuna.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attributes))
        self._numbers[name] = self.optuna.get_trials(deepcopy=False)[-1].number

    def is_lost(self, name: str) -> bool:
        """Return whether nothing is left of a trial but its name."""
        trial = self.trial(name)
        return trial is not None and bool(trial.user_attrs.get(LOST))

    def begin(self, name: str) -> None:
        """Mark a waiting trial as running; one that runs already stays so."""
        if self.storage.get_trial(self._trial_id(name)).state == TrialState.WAITING:
            self.storage.set_trial_state_values(self._trial_id(name), TrialState.RUNNING)

    def propose(self) -> tuple[str, dict[str, Any]]:
        """Return a new running trial, its parameters chosen by the sampler from the results of earlier ones.

        The sampler is seeded by the number of trials there are, so that a study that was stopped goes on with new
        proposals instead of repeating its first ones.
        """
        self.optuna.sampler = _sampler(self.search, len(self.optuna.get_trials(deepcopy=False)))
        trial = self.optuna.ask(self.space)
        name = trial_name(trial.number)
        self._numbers[name], self._live[name] = trial.number, trial
        return name, dict(trial.params)

    def params(self, name: str) -> dict[str, Any]:
        """Return a trial's parameters; those it was killed before getting are proposed now."""
        trial = self._trial(name)
        if not self.storage.get_trial(self._trial_id(name)).state.is_finished():
            for key, distribution in self.space.items():
                _suggest(trial, key, distribution)
        return dict(trial.params)

    def report(self, name: str, step: int, value: float) -> bool:
        """Report an intermediate value; return whether the pruner would give the trial up at this step."""
        trial = self._trial(name)
        trial.report(value, step)
        return trial.should_prune()

    def last_step(self, name: str) -> int:
        """Return the last step reported, -1 before the first."""
        step = self.storage.get_trial(self._trial_id(name)).last_step
        return -1 if step is None else step

    def finish(self, name: str, state: TrialState, value: float | None = None, error: str | None = None) -> None:
        """Record the trial's end: COMPLETE with a value, FAIL with an error, or PRUNED. A failed trial has no value."""
        self.begin(name)
        if error is not None:
            self.storage.set_trial_user_attr(self._trial_id(name), "error", error)
        self.optuna.tell(self._numbers[name], value, state)

    def _trial(self, name: str) -> optuna.Trial:
        if name not in self._live:
            self._live[name] = optuna.Trial(self.optuna, self._trial_id(name))
        return self._live[name]

    def _trial_id(self, name: str) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, self._numbers[name])


def open_storage(url: str | None, folder: Path, notice: Callable[[str], None] = lambda line: None) -> BaseStorage:
    """Open the study's journal file, or the database at `url`.

    The caller holds the study's lock, so a journal line that a kill tore, or a lock it left, is nobody's: both go. A
    journal with another line that is none is moved aside, and `notice` receives a line: trials follow the cells.

    Raises:
        StudyError: the URL is no database's, or the database does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        file = folder / "optuna.journal"
        _drop_torn_line(file)
        bad = _first_bad_line(file)
        if bad is not None:
            aside = rename_aside(file, "bad")
            notice(f"{file} line {bad}: no line of Optuna's; moved to {aside.name}, its trials are made from the cells")
        Path(f"{file}.lock").unlink(missing_ok=True)
        return JournalStorage(JournalFileBackend(str(file)))
    remember(url)
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        database = sqlite_file(url)
        with making(database) if database is not None else nullcontext():  # of two that make one, one would fail
            return RDBStorage(_literally(url), engine_kwargs=patience)
    except (sqlalchemy.exc.SQLAlchemyError, ConfigError, ImportError, OSError, ValueError) as error:
        reason = redacted(" ".join(str(error).split()))
        wanted = "expected for example sqlite:///studies.db or postgresql://user@host/name"
        raise StudyError(f"--storage {redacted(url)}: cannot be opened ({reason}); {wanted}") from None


def grid_params(cell: Cell, space: Iterable[str]) -> dict[str, Any]:
    """Return what identifies a cell of a grid among its trials."""
    identity: dict[str, Any] = {"arm": cell.arm, "base_seed": cell.base_seed, "seed": cell.seed}
    if BASE not in space:
        del identity[BASE]
    return identity | {name: value for name, value in cell.swept.items() if name in space}


def distributions(study: Study) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of the parameters."""
    if study.search is not None:
        return {name: _dimension(name, dimension) for name, dimension in study.space().items()}
    cells = study.cells([0])
    arms = list(dict.fromkeys(cell.arm for cell in cells))  # once, whatever the number of bases
    space: dict[str, BaseDistribution] = {"arm": CategoricalDistribution(arms)}
    if study.bases is not None:
        space[BASE] = IntDistribution(0, LARGEST_SEED)
    space["seed"] = IntDistribution(0, LARGEST_SEED)
    return space | {name: _covering([cell.swept[name] for cell in cells]) for name in cells[0].swept}


def signature(space: Mapping[str, BaseDistribution]) -> str:
    """Digest a space, equal for two that Optuna lets one study hold: same kinds, same choices; ranges may grow."""
    kinds = {}
    for name, distribution in space.items():
        fixed = distribution.choices if isinstance(distribution, CategoricalDistribution) else None
        kinds[name] = [type(distribution).__name__, fixed, getattr(distribution, "log", None)]
    return digest(kinds)


def trial_name(number: int) -> str:
    """Return the name of a search's trial."""
    return f"trial-{number:04d}"


def trial_number(name: str) -> int:
    """Return the number in such a name.

    >>> trial_number(trial_name(7))
    7
    """
    return int(name.removeprefix("trial-"))


def _name(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("name", trial_name(trial.number)))


def _covering(values: Sequence[Any]) -> BaseDistribution:
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return IntDistribution(min(values), max(values))
    if kinds == {float}:
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(list(dict.fromkeys(values)))


def _dimension(name: str, dimension: Dimension) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution(dimension.choices)
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None
    assert high is not None
    if float in setting_type(name):
        return FloatDistribution(float(low), float(high), log=dimension.log, step=step)
    return IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> None:
    """Let the sampler propose a parameter, unless the trial has it already."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    elif isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _sampler(search: SearchSettings | None, trials: int) -> BaseSampler:
    if search is None or search.sampler == "random":  # a grid's trials come with their parameters
        return RandomSampler(seed=search.sampler_seed + trials if search else 0)
    return TPESampler(seed=search.sampler_seed + trials, n_startup_trials=search.startup_trials)


def _pruner(settings: PrunerSettings | None) -> BasePruner:
    if settings is None:
        return NopPruner()
    if settings.kind == "successive-halving":
        return SuccessiveHalvingPruner(min_resource=max(1, settings.warmup_steps))
    return MedianPruner(
        n_startup_trials=settings.startup_trials,
        n_warmup_steps=settings.warmup_steps,
        interval_steps=settings.interval_steps,
    )


def _drop_torn_line(file: Path) -> None:
    content = file.read_bytes() if file.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def _first_bad_line(file: Path) -> int | None:
    """Return the number of the first line that is no operation of Optuna's; None if all are."""
    for number, line in enumerate(file.read_bytes().splitlines() if file.exists() else [], 1):
        try:
            operation = json.loads(line)
        except ValueError:
            return number
        if not isinstance(operation, dict) or "op_code" not in operation:
            return number
    return None


def _literally(url: str) -> str:
    """Escape a URL for Optuna, which takes a template in which only {SCHEMA_VERSION} is replaced.

    >>> _literally("postgresql://ada:a{b}@host/db-{SCHEMA_VERSION}")
    'postgresql://ada:a{{b}}@host/db-{SCHEMA_VERSION}'
    """
    return url.replace("{", "{{").replace("}", "}}").replace("{{SCHEMA_VERSION}}", "{SCHEMA_VERSION}")
