"""results/ as data frames: every file is read and checked whole before anything is drawn."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from vcppo.analysis.commands import command_of, make_command
from vcppo.errors import DataError
from vcppo.system.shipped import shipped

STATUSES = ("done", "failed", "pruned")
REFERENCE = "ppo"  # the arm that others are compared with
LAMBDA, ACCURACY = "gae.lambda_actor", "rollout/accuracy"
NUMBERS: Mapping[str, tuple[str, ...]] = {  # columns that hold numbers, or nothing where unknown
    "runs": ("base_seed", "seed", "avg_at_k", "pass_at_k", "k", "problems", "final_length_tokens",
             "start_length_tokens", "min_length_fraction", "min_accuracy", "final_accuracy"),
    "curves": ("base_seed", "seed", "step", "value"),
    "positions": ("base_seed", "seed", "step", "position", "n", "value_mean", "return_mean", "value_bias",
                  "explained_variance", "advantage_mean"),
    "calibration": ("base_seed", "seed", "step", "bin_low", "bin_high", "predicted_mean", "return_mean", "n"),
    "problems": ("base_seed", "seed", "samples", "correct", "unreadable", "length_tokens"),
    "truth": ("base_seed", "seed", "step", "answer", "position", "fraction", "truth", "estimate"),
}  # fmt: skip
LATER: Mapping[str, tuple[str, ...]] = {  # of the same kind, which older exports have not
    "runs": ("pretrain_steps_done", "pretrain_answers", "pretrain_compute_tokens"),
    "truth": ("n",),
}
TEXTS: Mapping[str, tuple[str, ...]] = {
    "runs": ("study", "cell", "arm", "status", "error", "commit", "origin"),
    "curves": ("arm", "metric", "origin"),
    "positions": ("arm", "stage", "from_end", "origin"),
    "calibration": ("arm", "stage", "origin"),
    "problems": ("arm", "problem", "origin"),
    "truth": ("arm", "origin"),
}
RUN = ("arm", "base_seed", "seed")  # what tells runs of a study apart
NEVER_EMPTY = ("base_seed", "seed", "step", "position", "samples", "correct", "answer", "fraction", "truth", "estimate")
BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {"truth": {"fraction": (0, 1)}}
BASE_COLUMNS = ("quantity", "value", "low", "high", "n", "commit", "origin")  # of base-policy.csv
NOISE_COLUMNS = ("task", "lines", "decisions", "right", "advantages", "signal_to_noise", "commit", "origin")
SHARED_COLUMNS = ("commit", "studies", "origin")  # of shared-draws.csv
PAPER_COLUMNS = ("metric", "value", "unit", "n", "origin", "confidence", "source")
PAPER_NUMBERS = ("step", "position", "token", "distance_tokens", "lambda", "value")


class BadResultsError(DataError):
    """A file under results/ is not valid: one line with file, place, what came, what was expected."""


class NoDataError(LookupError):
    """A figure cannot be drawn for lack of data; the message ends with the command that makes it."""


class NoStudyError(NoDataError):
    """The results folder has nothing of the study that a figure is of."""

    def __init__(self, reason: str, study: str) -> None:
        super().__init__(reason)
        self.study = study


@dataclass(frozen=True)
class Study:
    """The exported runs of one study.

    `runs` has every run whatever its status; the other frames hold finished runs only, so that half a run
    enters no average. A file that was not exported is an empty frame. `shared_draws`: runs of one seed drew their first
    batches alike on all bases, so an interval over runs resamples bases and seeds crossed.
    """

    name: str
    runs: pd.DataFrame
    curves: pd.DataFrame
    positions: pd.DataFrame
    calibration: pd.DataFrame
    problems: pd.DataFrame
    truth: pd.DataFrame = field(default_factory=pd.DataFrame)
    shared_draws: bool = field(default=False, kw_only=True)

    @property
    def finished(self) -> pd.DataFrame:
        """The rows of `runs` that are done."""
        return self.runs[self.runs["status"] == "done"]

    @property
    def command(self) -> str:
        """The command that makes this study's data, with its bases and seeds."""
        return command_of(self.name, self.runs)

    @property
    def arms(self) -> list[str]:
        """Every arm of the study, in the one order of all figures."""
        return sort_arms(self.runs["arm"].unique())

    def need(self, kind: str, figure: str) -> pd.DataFrame:
        """Return the frame of that kind; NoDataError if it has no rows."""
        frame: pd.DataFrame = getattr(self, kind)
        if frame.empty:
            raise NoDataError(f"{figure}: no finished runs in {self.name}/{kind}.csv; make it with: {self.command}")
        return frame


@dataclass(frozen=True)
class Results:
    """A results folder: measured studies by name, published numbers by file name without its ending.

    `base` holds measurements of the cold-start policy that all studies share, one row per quantity; `noise` what was
    computed of tasks, one row for each size of a task and way of making advantages.
    """

    root: Path
    studies: Mapping[str, Study]
    paper: Mapping[str, pd.DataFrame]
    base: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(BASE_COLUMNS)))
    noise: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(NOISE_COLUMNS)))

    def of_base(self, quantity: str) -> tuple[float, float, float] | None:
        """Return a value and both ends of its interval; None where it was not measured."""
        rows = self.base[self.base["quantity"] == quantity]
        if rows.empty:
            return None
        value, low, high = rows.iloc[0][["value", "low", "high"]].astype(float)
        return value, low, high

    def study(self, name: str, figure: str, seeds: int = 5) -> Study:
        """Return a study that has at least one run; NoStudyError with the command that makes it otherwise."""
        if name not in self.studies:
            command = make_command(name, seeds=seeds)
            raise NoStudyError(f"{figure}: no {self.root / name}; make it with: {command}", name)
        return self.studies[name]

    def published(self, name: str) -> pd.DataFrame:
        """Return a file of published numbers, empty where this folder has none."""
        return self.paper.get(name, pd.DataFrame(columns=[*PAPER_COLUMNS, *PAPER_NUMBERS, "arm", "system"]))


FAMILIES: Mapping[str, tuple[str, ...]] = {  # the arms of the study `methods`, by where a token's advantage comes from
    "Learned critic": ("ppo", "ppo-fresh-critic", "ppo-max", "ppo-xu", "espo", "apa", "awr"),
    "Calibrated values": ("vcppo", "dvpo", "vapo", "vineppo"),
    "Preferences": ("dpo", "dpo-iter", "rto", "rto-calibrated", "semi-rto", "ddpo", "rs-ppo"),
    "Group baseline": ("grpo", "dr-grpo", "dapo", "gspo", "cispo", "cppo"),
    "REINFORCE": ("rloo", "reinforce++", "reinforce++-baseline"),
}
OTHER_FAMILY = "Other"
ARM_ORDER = (
    "ppo", "ppo-pessimist", "ppo-bounded", "ppo-recentred", "ppo-constant", "ppo-mc",
    "ppo-fresh-critic", "ppo-max", "ppo-xu", "espo", "apa", "awr",
    "vcppo-no-pretrain", "vcppo-first-phase", "vcppo-half-way", "vcppo-0", "vcppo-0.8", "vcppo-no-decouple-0.95",
    "vcppo-no-decouple-1.0", "vcppo-mc", "vcppo-0.99", "vcppo-converge", "vcppo", "vcppo-fast", "dvpo",
    "exact-blind", "exact-eighth", "exact-mc", "exact",
    "vapo-no-pretrain", "vapo-no-decouple", "vapo-no-length-adaptive", "vapo-no-clip-higher", "vapo-no-token-loss",
    "vapo-no-positive-nll", "vapo-no-group", "vapo", "vineppo", "vine-k1", "vine-k3", "vine-k9",
    "dpo", "dpo-iter", "rto", "rto-calibrated", "semi-rto", "ddpo", "rs-ppo",
    "grpo", "dr-grpo", "dapo", "gspo", "cispo",
    "cppo", "cppo-0.5", "cppo-0.5-refill", "cppo-0.75", "cppo-0.75-refill", "cppo-0.875", "cppo-0.875-refill",
    "rloo", "reinforce++", "reinforce++-baseline",
)  # fmt: skip


def sort_arms(arms: Iterable[str]) -> list[str]:
    """Sort arms: named ones first, in the order of the argument, then others, numbers in them read as numbers.

    >>> sort_arms(["vcppo", "pretrain.steps=150", "pretrain.steps=50", "ppo"])
    ['ppo', 'vcppo', 'pretrain.steps=50', 'pretrain.steps=150']
    """
    return sorted(arms, key=lambda arm: (ARM_ORDER.index(arm) if arm in ARM_ORDER else len(ARM_ORDER), _natural(arm)))


def family(arm: str) -> str:
    """Return the family of an arm of the study `methods`.

    >>> family("dapo"), family("mine")
    ('Group baseline', 'Other')
    """
    return next((name for name, arms in FAMILIES.items() if arm in arms), OTHER_FAMILY)


def run_key(frame: pd.DataFrame) -> list[str]:
    """Return the columns that tell the runs of an arm apart; a frame without base_seed is of one base.

    >>> run_key(pd.DataFrame(columns=["arm", "base_seed", "seed", "value"])), run_key(pd.DataFrame(columns=["seed"]))
    (['base_seed', 'seed'], ['seed'])
    """
    return [name for name in RUN[1:] if name in frame]


def bases_of(runs: pd.Index) -> list[Any]:
    """Return [runs] the base of each run of an index over base_seed, seed; one for all where it has seeds alone.

    >>> bases_of(pd.MultiIndex.from_tuples([(0, 5), (1, 5)], names=["base_seed", "seed"])), bases_of(pd.Index([5, 6]))
    ([0, 1], [0, 0])
    """
    return list(runs.get_level_values("base_seed")) if "base_seed" in runs.names else [0] * len(runs)


def read_results(root: Path) -> Results:
    """Read and check every table below a results folder.

    Raises:
        BadResultsError: no such folder, or that of one study, or a file lacks a column, holds text where a number
            belongs, an unknown status, the wrong origin, or two rows for one run.
    """
    if not root.is_dir():
        raise BadResultsError(f"{root}: no such folder; expected one with <study>/runs.csv in it")
    if (root / "runs.csv").exists():
        above = root.resolve().parent
        raise BadResultsError(f"{root}: the folder of one study; expected the one that it lies in: --results {above}")
    folders = sorted(path.parent for path in root.glob("*/runs.csv"))
    paper = root / "paper" if (root / "paper").is_dir() else shipped("paper")
    return Results(
        root=root,
        studies={folder.name: read_study(folder) for folder in folders},
        paper={path.stem: _read_paper(path) for path in sorted(paper.glob("*.csv"))},
        base=_read_beside(root / "base-policy.csv", BASE_COLUMNS, "measured", ("value", "low", "high", "n")),
        noise=_read_beside(
            root / "decision-noise.csv", NOISE_COLUMNS, "computed", ("lines", "decisions", "right", "signal_to_noise")
        ),
    )


def read_study(folder: Path) -> Study:
    """Read one study's folder, and in shared-draws.csv beside it whether it was run at such a commit.

    Raises as `read_results`.
    """
    if not (folder / "runs.csv").exists():
        raise BadResultsError(f"{folder}: no runs.csv in it; make it with: vcppo export {folder.name}")
    frames = {kind: _read_measured(file_of(folder, kind), kind) for kind in NUMBERS}
    runs = frames["runs"]
    for row in np.flatnonzero(~runs["status"].isin(STATUSES)):
        got = runs["status"].iloc[row]
        raise BadResultsError(f"{folder / 'runs.csv'} line {row + 2}: status = {got!r}, expected {', '.join(STATUSES)}")
    for row in np.flatnonzero(runs.duplicated(list(RUN))):
        raise BadResultsError(f"{folder / 'runs.csv'} line {row + 2}: a second row for {_named(runs.iloc[row])}")
    done = runs.loc[runs["status"] == "done", list(RUN)]
    finished = [frames[kind].merge(done, on=list(RUN)) for kind in frames if kind != "runs"]
    shared = _read_beside(folder.parent / "shared-draws.csv", SHARED_COLUMNS, "computed", ())
    study = Study(folder.name, runs, *finished, shared_draws=bool(runs["commit"].isin(shared["commit"]).any()))
    _check_problems(file_of(folder, "problems"), study.problems)
    return study


def file_of(folder: Path, kind: str) -> Path:
    """Return the file of a study's table: Parquet, or CSV, as all were before; neither need be there.

    Raises:
        BadResultsError: both are.
    """
    parquet, text = folder / f"{kind}.parquet", folder / f"{kind}.csv"
    if parquet.exists() and text.exists():
        raise BadResultsError(f"{folder}: both {parquet.name} and {text.name}; expected one, that of the last export")
    return parquet if parquet.exists() else text


def _read_measured(path: Path, kind: str) -> pd.DataFrame:
    columns = [*TEXTS[kind], *NUMBERS[kind]]
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=float if name in NUMBERS[kind] else str) for name in columns})
    needed = [name for name in columns if name != "base_seed"]  # of one base, 0, before it was a column
    frame = _read_parquet(path, needed) if path.suffix == ".parquet" else _read_csv(path, needed)
    if "base_seed" not in frame:
        frame.insert(list(frame.columns).index("seed"), "base_seed", "0")
    _check_origin(path, frame, "measured")
    swept = [name for name in frame.columns if kind == "runs" and "." in name and _all_numbers(frame[name])]
    later = [name for name in LATER.get(kind, ()) if name in frame]
    for name in [*NUMBERS[kind], *swept, *later]:
        frame[name] = _numbers(path, frame[name], may_be_empty=name not in NEVER_EMPTY)
    for name, (low, high) in BOUNDS.get(kind, {}).items():
        for row in np.flatnonzero(~frame[name].between(low, high)):
            got = frame[name].iloc[row]
            raise BadResultsError(f"{path} line {row + 2}: {name} = {got:g}, expected {low:g} to {high:g}")
    if kind == "positions":
        frame["from_end"] = frame["from_end"].astype(str).str.lower().isin(["true", "1"])  # text of a CSV file
    return frame


def _read_paper(path: Path) -> pd.DataFrame:
    frame = _read_csv(path, PAPER_COLUMNS)
    _check_origin(path, frame, "paper")
    for name in PAPER_NUMBERS:
        if name in frame:
            frame[name] = _numbers(path, frame[name], may_be_empty=name != "value")
    return frame


def _read_beside(path: Path, columns: Sequence[str], origin: str, numbers: Sequence[str]) -> pd.DataFrame:
    """Read a table that belongs to no study; empty where the folder has none."""
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    frame = _read_csv(path, columns)
    _check_origin(path, frame, origin)
    for name in numbers:
        frame[name] = _numbers(path, frame[name], may_be_empty=False)
    return frame


def _read_parquet(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadResultsError(f"{path}: not a Parquet table ({' '.join(str(error).split())})") from None
    _check_columns(path, frame, columns)
    return frame


def _read_csv(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadResultsError(f"{path}: not a CSV table ({' '.join(str(error).split())})") from None
    _check_columns(path, frame, columns)
    return frame


def _check_columns(path: Path, frame: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise BadResultsError(f"{path}: column{plural} {', '.join(missing)} missing; it has {', '.join(frame.columns)}")


def _check_origin(path: Path, frame: pd.DataFrame, wanted: str) -> None:
    for row in np.flatnonzero(frame["origin"] != wanted):
        got = frame["origin"].iloc[row]
        raise BadResultsError(f"{path} line {row + 2}: origin = {got!r}, expected {wanted!r} in this folder")


def _numbers(path: Path, column: "pd.Series[str]", *, may_be_empty: bool) -> "pd.Series[float]":
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    if pd.api.types.is_numeric_dtype(column):  # of a Parquet file
        empty: Any = column.isna() if may_be_empty else False
    else:
        empty = column.str.lower().isin(["", "nan"]) if may_be_empty else False
    for row in np.flatnonzero((numbers.isna() | np.isinf(numbers)) & ~pd.Series(empty, index=column.index)):
        got = column.iloc[row]
        shown = repr(got) if isinstance(got, str) else f"{got:g}"
        raise BadResultsError(f"{path} line {row + 2}: {column.name} = {shown}, expected a number")
    return numbers


def _all_numbers(column: "pd.Series[str]") -> bool:
    return bool(pd.to_numeric(column, errors="coerce").notna().all())


def _check_problems(path: Path, problems: pd.DataFrame) -> None:
    """Check that finished runs on one task have the same problems: the two-level bootstrap crosses problems with runs.

    A study that sweeps a setting of the task has other problems at each of its values.
    """
    for _, on_one in problems.groupby(problems["arm"].map(_task_of), sort=True):
        every = on_one["problem"].nunique()
        for _, run in on_one.groupby(list(RUN), sort=True):
            if len(run) != every or run["problem"].nunique() != every:
                raise BadResultsError(
                    f"{path}: {_named(run.iloc[0])} has {len(run)} rows, expected one for each of {every} problems"
                )


def _task_of(arm: str) -> str:
    return ",".join(part for part in arm.split(",") if part.startswith("task."))


def _named(run: "pd.Series[Any]") -> str:
    """Describe the run that a row is of; base 0 goes without saying."""
    base = f", base {run['base_seed']:g}" if run["base_seed"] else ""
    return f"arm {run['arm']}{base}, seed {run['seed']:g}"


def _natural(text: str) -> list[tuple[int, float, str]]:
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(0, float(part), "") if part[0].isdigit() else (1, 0.0, part) for part in parts]
