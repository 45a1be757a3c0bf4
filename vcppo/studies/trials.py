"""Optuna, by ask and tell from the one process of a study: a cell of a grid is a trial, so is a search's proposal.

A cell's state is that of its folder; a trial is its image for Optuna, its samplers and its dashboard.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.engine
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from vcppo.errors import ConfigError, StudyError
from vcppo.settings.digests import digest
from vcppo.settings.loading import setting_type
from vcppo.settings.search_space import Dimension
from vcppo.studies.cells import Cell
from vcppo.studies.optuna_journal import open_journal
from vcppo.studies.study import PrunerSettings, SearchSettings, Study
from vcppo.system.redaction import redacted, remember
from vcppo.system.sqlite_files import making, sqlite_file

LARGEST_SEED = 2**53  # a storage keeps numbers as floats
MOST_CHOICES = 32  # of a parameter of a grid's trials
LOST = "lost"  # an attribute of a trial that `enter_lost` added
BASE = "base_seed"  # a parameter of the trials of a study that gives bases


@dataclass(frozen=True)
class TrialEnd:
    """State and value that a trial should have, by the folders of its cells; without a state it has not ended."""

    params: Mapping[str, Any]
    state: TrialState | None = None
    value: float | None = None
    error: str | None = None


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
        self.refresh()

    def refresh(self) -> None:
        """Look up all trials, as after an error: what failed may have been done, and its reply lost."""
        self._live = {}
        self._numbers = {_name(trial): trial.number for trial in self.optuna.get_trials(deepcopy=False)}

    def names(self) -> list[str]:
        """Return the names of all trials, oldest first."""
        return list(self._numbers)

    def trial(self, name: str) -> FrozenTrial | None:
        """Return the latest trial of that name, as stored."""
        return self.storage.get_trial(self._trial_id(name)) if name in self._numbers else None

    def enqueue(self, name: str, params: Mapping[str, Any]) -> None:
        """Add a waiting trial with these parameters, not proposed by a sampler."""
        self._add(name, params, TrialState.WAITING)

    def enter(self, proposed: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the trials of a search whose journal is lost, by what was proposed to its cells.

        A trial that had no cell leaves a gap, which a failed one fills: numbers name the trials to come.
        """
        for number in range(1 + max((trial_number(name) for name in proposed), default=-1)):
            name = trial_name(number)
            if name in proposed:
                self.enqueue(name, proposed[name])
            else:
                self._enter_lost(name)

    def _enter_lost(self, name: str) -> None:
        """Add a failed trial in place of one of which nothing is left."""
        attributes = {"name": name, "error": "its parameters are lost with a damaged journal", LOST: True}
        self.optuna.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attributes))
        self._numbers[name] = self.optuna.get_trials(deepcopy=False)[-1].number

    def proposed(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Return the trials with their parameters, None where nothing is left of one but its name."""
        return [(name, None if self.is_lost(name) else self.params(name)) for name in self.names()]

    def is_lost(self, name: str) -> bool:
        """Return whether nothing is left of a trial but its name."""
        trial = self.trial(name)
        return trial is not None and bool(trial.user_attrs.get(LOST))

    def begin(self, name: str, params: Mapping[str, Any]) -> None:
        """Mark a trial as running; where there is none, or one that has ended, another begins."""
        trial = self.trial(name)
        if trial is None or trial.state.is_finished():
            self._add(name, params, TrialState.RUNNING)
        elif trial.state == TrialState.WAITING:
            self.storage.set_trial_state_values(self._trial_id(name), TrialState.RUNNING)

    def propose(self, known: Set[str] = frozenset()) -> tuple[str, dict[str, Any]]:
        """Return a new running trial, its parameters chosen by the sampler from the results of earlier ones.

        The sampler is seeded by the number of trials there are, so that a study that was stopped goes on with new
        proposals instead of repeating its first ones.

        Args:
            known: names of the trials that were proposed before. One that is not among them, and has not ended, was
                proposed to somebody who never heard of it.
        """
        for name in self._numbers.keys() - known if known else ():
            stored = self.trial(name)
            if stored is not None and not stored.state.is_finished():
                return name, self.params(name)
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

    def report(self, name: str, values: Iterable[tuple[int, float]]) -> bool:
        """Report intermediate values by step, but for those reported before; whether the pruner gives the trial up."""
        trial, before = self._trial(name), self.last_step(name)
        for step, value in values:
            if step > before:
                trial.report(value, step)
                if trial.should_prune():
                    return True
        return False

    def last_step(self, name: str) -> int:
        """Return the last step reported, -1 before the first."""
        step = self.storage.get_trial(self._trial_id(name)).last_step
        return -1 if step is None else step

    def finish(self, name: str, end: TrialEnd) -> None:
        """Record the trial's end, unless it has ended so: COMPLETE with a value, FAIL with an error, or PRUNED.

        A failed trial has no value.
        """
        trial = self.trial(name)
        if end.state is None or (trial is not None and trial.state == end.state):
            return
        self.begin(name, end.params)
        if end.error is not None:
            self.storage.set_trial_user_attr(self._trial_id(name), "error", end.error)
        self.optuna.tell(self._numbers[name], end.value, end.state)

    def agree(self, ends: Mapping[str, TrialEnd]) -> None:
        """Make the trials of a grid agree with its cells; one whose cell the study has no more has failed."""
        stored = {_name(trial): trial.state for trial in self.optuna.get_trials(deepcopy=False)}
        for name, state in stored.items():
            if name not in ends and not state.is_finished():
                self.finish(name, TrialEnd({}, TrialState.FAIL, error="not of this study any more"))
        for name, end in ends.items():
            if stored.get(name) != end.state:
                self.finish(name, end)

    def _add(self, name: str, params: Mapping[str, Any], state: TrialState) -> None:
        known = {key: value for key, value in params.items() if key in self.space}
        trial = create_trial(
            state=state,
            params=known,
            distributions={key: self.space[key] for key in known},
            user_attrs={"name": name, **{key: value for key, value in params.items() if key not in known}},
        )
        trial_id = self.storage.create_new_trial(self._id, template_trial=trial)
        self._numbers[name] = self.storage.get_trial_number_from_id(trial_id)
        self._live.pop(name, None)

    def _trial(self, name: str) -> optuna.Trial:
        if name not in self._live:
            self._live[name] = optuna.Trial(self.optuna, self._trial_id(name))
        return self._live[name]

    def _trial_id(self, name: str) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, self._numbers[name])


def open_storage(url: str | None, folder: Path, notice: Callable[[str], None] = lambda line: None) -> BaseStorage:
    """Open the study's journal file, or the database at `url`.

    The caller holds the study's lock. A journal with a line that is none of Optuna's is moved aside, and `notice`
    receives a line: trials follow the cells.

    Raises:
        StudyError: the URL is no database's, or the database does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        return open_journal(folder / "optuna.journal", notice)
    remember(url)
    try:
        database = sqlite_file(url)
        with making(database) if database is not None else nullcontext():  # of two that make one, one would fail
            return RDBStorage(_literally(url), engine_kwargs=connecting(url))
    except (sqlalchemy.exc.SQLAlchemyError, ConfigError, ImportError, OSError, ValueError) as error:
        reason = redacted(" ".join(str(error).split()))
        wanted = "expected for example sqlite:///studies.db or postgresql://user@host/name"
        raise StudyError(f"--storage {redacted(url)}: cannot be opened ({reason}); {wanted}") from None


def connecting(url: str) -> dict[str, Any]:
    """Return arguments of SQLAlchemy's engine: a connection that broke is noticed and made anew, no wait is endless.

    >>> connecting("sqlite:///studies.db")
    {'connect_args': {'timeout': 60}}
    >>> connecting("postgresql://ada@host/db?connect_timeout=3")["connect_args"]["connect_timeout"]
    3
    """
    address = sqlalchemy.engine.make_url(url)
    kind, driver = address.get_backend_name(), address.drivername.partition("+")[2]
    patience: dict[str, Any] = {}
    if kind == "sqlite":
        return {"connect_args": {"timeout": 60}}
    if kind == "postgresql" and driver in ("", "psycopg", "psycopg2"):
        patience = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        patience["tcp_user_timeout"] = 30_000  # milliseconds
    if kind in ("mysql", "mariadb") and driver in ("", "mysqldb", "pymysql"):
        patience = {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}
    given = {name: int(str(value)) for name, value in address.query.items() if name in patience}
    return {"pool_pre_ping": True, "connect_args": patience | given}


def grid_params(cell: Cell, space: Container[str]) -> dict[str, Any]:
    """Return what identifies a cell of a grid among its trials, be it in the space or not."""
    identity: dict[str, Any] = {"arm": cell.arm, "base_seed": cell.base_seed, "seed": cell.seed}
    if BASE not in space:
        del identity[BASE]
    return identity | cell.swept


def distributions(study: Study, seeds: Sequence[int] | None = None) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of the parameters.

    What has more than MOST_CHOICES choices is no parameter but an attribute of its trials: Optuna's storages write
    every choice into every trial.
    """
    if study.search is not None:
        return {name: _dimension(name, dimension) for name, dimension in study.space().items()}
    cells = study.cells(study.seed_list() if seeds is None else seeds)
    arms = list(dict.fromkeys(cell.arm for cell in cells))  # once, whatever the number of bases and seeds
    space: dict[str, BaseDistribution] = {"arm": CategoricalDistribution(arms)}
    if study.bases is not None:
        space[BASE] = IntDistribution(0, LARGEST_SEED)
    space["seed"] = IntDistribution(0, LARGEST_SEED)
    space |= {name: _covering([cell.swept[name] for cell in cells]) for name in cells[0].swept}
    return {name: distribution for name, distribution in space.items() if _is_short(distribution)}


def _is_short(distribution: BaseDistribution) -> bool:
    return not isinstance(distribution, CategoricalDistribution) or len(distribution.choices) <= MOST_CHOICES


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


def _literally(url: str) -> str:
    """Escape a URL for Optuna, which takes a template in which only {SCHEMA_VERSION} is replaced.

    >>> _literally("postgresql://ada:a{b}@host/db-{SCHEMA_VERSION}")
    'postgresql://ada:a{{b}}@host/db-{SCHEMA_VERSION}'
    """
    return url.replace("{", "{{").replace("}", "}}").replace("{{SCHEMA_VERSION}}", "{SCHEMA_VERSION}")
