"""Tables 1 to 4 and the table of components: measured, with intervals, beside published.

Each is one frame of numbers (its CSV) and one of text (its Markdown and LaTeX), with notes below.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vcppo.analysis import summary
from vcppo.analysis.data import NoDataError, Results, Study, read_study, sort_arms
from vcppo.analysis.starts import starts
from vcppo.analysis.style import arm_label
from vcppo.maths.statistics import UNKNOWN

NOTHING = "–"
COLLAPSED_LENGTH, COLLAPSED_ACCURACY = 0.25, 0.02
APART = 50.0  # points between two runs of one arm, beyond which their mean describes neither
REFERENCE = "ppo"
INTERVAL_NOTE = (
    "Measured: mean over seeds and problems [95 % percentile bootstrap over both, crossed; none with one seed, or "
    f"where all answers are alike]. Where runs of an arm end more than {APART:g} points apart, each run instead: a "
    "mean would describe none of them."
)
BELOW = f"ended below {100 * COLLAPSED_ACCURACY:g} %"
OTHER_TASK_NOTE = (
    "Published: arXiv 2503.01491, Qwen2.5-32B, single runs without intervals. "
    "Measured: another task and model; compare orders, not numbers."
)
LOST_NOTE = "Failed and pruned runs enter no mean and are not counted as 0."


@dataclass(frozen=True)
class Table:
    """A table as numbers and as text, both with a row for each line."""

    name: str
    title: str
    numbers: pd.DataFrame
    shown: pd.DataFrame
    notes: Sequence[str]


def measured(study: Study, arms: Iterable[str]) -> pd.DataFrame:
    """Return one row per arm: scores in per cent with intervals, and how many runs and problems are behind them.

    Columns arm, avg, avg_low, avg_high, avg_runs (every run, lowest first), the same of pass, below (runs that ended
    below 2 %), done, failed, pruned, problems, k.
    """
    rows = []
    for arm in arms:
        runs = study.runs[study.runs["arm"] == arm]
        row: dict[str, object] = {"arm": arm}
        tables = (summary.accuracy_table(study.problems, arm), summary.solved_table(study.problems, arm))
        for name, table in zip(("avg", "pass"), tables, strict=True):
            scores = summary.final_scores(runs, arm, f"{name}_at_k")
            row[name] = 100 * float(scores.mean()) if len(scores) else math.nan
            low, high = math.nan, math.nan
            if len(table):
                interval = summary.crossed_interval(table, "table", study.name, name, arm)
                low, high = 100 * interval.low, 100 * interval.high
            row |= {f"{name}_low": low, f"{name}_high": high, f"{name}_runs": tuple(sorted(100 * scores))}
        row["below"] = int((summary.final_scores(runs, arm) < COLLAPSED_ACCURACY).sum())
        row |= {status: int((runs["status"] == status).sum()) for status in ("done", "failed", "pruned")}
        row |= {name: runs[name].max() for name in ("problems", "k")}
        rows.append(row)
    return pd.DataFrame(rows)


def table1(results: Results) -> Table:
    """Return the table of GRPO against VC-PPO."""
    study = results.study("components", "table1")
    numbers = _beside_published(study, ["grpo", "vcppo"], results.published("table1"))
    return _table(
        "table1", "Table 1. GRPO and VC-PPO", numbers, [OTHER_TASK_NOTE, "Published at 16K tokens of context."]
    )


def table2(results: Results) -> Table:
    """Return the table of every component, both readings of the row `w/o Decoupled-GAE`."""
    study = results.study("components", "table2")
    published = results.published("table2")
    twin = published[published["arm"] == "vcppo-no-decouple-1.0"].assign(arm="vcppo-no-decouple-0.95")
    numbers = _beside_published(study, study.arms, pd.concat([published, twin], ignore_index=True))
    notes = [
        OTHER_TASK_NOTE,
        "Published at 8K tokens of context.",
        "`One λ`: the paper's row `VC-PPO w/o Decoupled-GAE`. It does not say which λ actor and critic then share; "
        "the row equals table 4's λ actor = 1.0 in three of four cells, so λ = 1 is the likelier reading. Both were "
        "run, and the one published row stands beside both.",
        "The published VC-PPO row equals table 4's λ actor = 0.99, not the stated default 0.95.",
        "The paper has no row without value pretraining; VAPO (arXiv 2504.05118, table 1) without it has 11 on "
        "AIME 2024, avg@32.",
    ]
    return _table("table2", "Table 2. What each component is worth", numbers, notes)


def table3(results: Results) -> Table:
    """Return the table of value-pretraining steps."""
    numbers = _swept(results, "table3", "pretrain-steps", "pretrain.steps")
    notes = [
        OTHER_TASK_NOTE,
        "Published at 8K tokens of context; a step there is probably a rollout iteration of 8 to 16 critic updates, "
        "here it is one update.",
    ]
    return _table("table3", "Table 3. Value-pretraining steps", numbers, notes, first="pretraining steps")


def table4(results: Results) -> Table:
    """Return the table of the actor's λ, the critic's being 1."""
    numbers = _swept(results, "table4", "lambda-actor", "gae.lambda_actor")
    notes = [OTHER_TASK_NOTE, "Published at 8K tokens of context; λ critic is 1 in every row."]
    return _table("table4", "Table 4. λ of the actor", numbers, notes, first="λ actor")


def components(study: Study) -> Table:
    """Return the outcome of each arm: scores, lowest points during training, how often it beats PPO."""
    numbers = measured(study, study.arms)
    began = starts(study).groupby("arm")[["bias", "push"]].mean()
    extra = [_start(began, arm) | _collapse(study, arm) | _improvement(study, arm) for arm in study.arms]
    numbers = pd.concat([numbers, pd.DataFrame(extra)], axis=1)
    k = samples_behind(numbers)
    shown = pd.DataFrame(
        {
            "arm": [arm_label(arm) for arm in numbers["arm"]],
            f"avg@{k} (%)": scores(numbers, "avg"),
            f"pass@{k} (%)": scores(numbers, "pass", 0),
            BELOW: of_runs(numbers, "below"),
            "critic's bias at the start": [number(x, 2) for x in numbers["bias"]],
            "push on stopping at the start": [number(x, 2) for x in numbers["push"]],
            "shortest / start": [number(x, 2) for x in numbers["min_length"]],
            "lowest accuracy (%)": [number(x, 1) for x in numbers["min_accuracy"]],
            "collapsed": of_runs(numbers, "collapsed"),
            "P(better than PPO)": with_interval(numbers, "improvement", 2),
            "pairs won": [
                f"{won:g} of {pairs:g}" if pairs else NOTHING
                for won, pairs in zip(numbers["won"], numbers["pairs"], strict=True)
            ],
            "seeds": seeds_behind(numbers),
        }
    )
    if REFERENCE not in study.arms:
        shown = shown.drop(columns=["P(better than PPO)", "pairs won"])
    unknown = {"bias": "critic's bias at the start", "push": "push on stopping at the start"}
    shown = shown.drop(columns=[column for name, column in unknown.items() if numbers[name].isna().all()])
    notes = [
        INTERVAL_NOTE + f" {number(numbers['problems'].max(), 0)} problems, {k} answers each.",
        "Shortest / start, lowest accuracy: mean over seeds of each run's lowest point during training.",
        f"Collapsed: mean length below {COLLAPSED_LENGTH:g} of its start and accuracy below "
        f"{100 * COLLAPSED_ACCURACY:g} % at some point of training.",
    ]
    if numbers["push"].notna().any():
        notes.append(
            "At the start: before the first update. Bias: mean of value less Monte-Carlo return. Push: gradient of the "
            "decision to stop, mean over answers; above 0 the first updates will make answers shorter "
            "(vcppo/maths/collapse_law.py)."
        )
    if REFERENCE in study.arms:
        notes.append(
            "P: chance that a run ends above a run of PPO, ties half [exact 95 % interval, Clopper-Pearson, of as many "
            "independent pairs as the arm with fewer runs has]. Pairs won: of all pairs of a run and one of PPO."
        )
    lost = numbers["failed"].sum() + numbers["pruned"].sum() > 0
    return Table(
        study.name, f"{study.name}: outcome of each arm", numbers, shown, [*notes, LOST_NOTE] if lost else notes
    )


def components_table(folder: Path) -> str:
    """Return the outcome of each arm of a study for a terminal, from its CSV files in `folder`, say results/components.

    Raises:
        BadResultsError: the study was not exported there, or a file of it is not valid.
    """
    return terminal(components(read_study(folder)))


def terminal(table: Table) -> str:
    """Format the table as plain text, its header wrapped so that columns are as wide as their content."""
    body = table.shown.astype(str).to_numpy().tolist()
    heads = [name.split() for name in table.shown.columns]
    widths = [max(map(len, [*cells, *words])) for cells, words in zip(zip(*body, strict=True), heads, strict=True)]
    wrapped = [textwrap.wrap(name, width) for name, width in zip(table.shown.columns, widths, strict=True)]
    tall = max(map(len, wrapped))
    header = zip(*([""] * (tall - len(lines)) + lines for lines in wrapped), strict=True)
    lines = ["  ".join(_pad(row, widths)).rstrip() for row in [*header, ["-" * width for width in widths], *body]]
    notes = [textwrap.fill(note, 100, initial_indent="  ", subsequent_indent="  ") for note in table.notes]
    return "\n".join([table.title, "", *lines, "", *notes]) + "\n"


def markdown(table: Table) -> str:
    """Format title, the table with its columns padded to equal width, and notes; ends with a newline."""
    cells = [list(table.shown.columns), *table.shown.astype(str).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(_pad(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"**{table.title}**", "", lines[0], rule, *lines[1:], "", *notes]) + "\n"


def render(table: Table) -> dict[str, bytes]:
    """Render the table as Markdown, CSV (numbers, six digits) and LaTeX (booktabs)."""
    latex = table.shown.to_latex(index=False, escape=True, column_format="l" + "r" * (table.shown.shape[1] - 1))
    for plain, command in (("λ", r"$\lambda$"), (NOTHING, "--"), ("†", r"$\dagger$")):
        latex = latex.replace(plain, command)
    notes = "".join(f"% {note}\n" for note in (table.title, *table.notes))
    return {
        "md": markdown(table).encode(),
        "csv": table.numbers.map(_joined).to_csv(index=False, float_format="%.6g", lineterminator="\n").encode(),
        "tex": (notes + latex).encode(),
    }


def _joined(cell: object) -> object:
    """Return a cell of CSV: the numbers of all runs with spaces between, anything else as it is."""
    return " ".join(f"{value:.6g}" for value in cell) if isinstance(cell, tuple) else cell


def _pad(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _table(name: str, title: str, numbers: pd.DataFrame, notes: Sequence[str], first: str = "arm") -> Table:
    """Return a table that has measured and published columns."""
    k = samples_behind(numbers)
    shown = pd.DataFrame(
        {
            first: numbers["row"],
            f"measured avg@{k} (%)": scores(numbers, "avg"),
            f"measured pass@{k} (%)": scores(numbers, "pass"),
            "seeds": seeds_behind(numbers),
            "problems": [number(x, 0) for x in numbers["problems"]],
        }
    )
    for column in numbers.columns[numbers.columns.str.startswith("published ")]:
        shown[column] = [number(x, 1) for x in numbers[column]]
    lost = numbers["failed"].sum() + numbers["pruned"].sum() > 0
    return Table(name, title, numbers, shown, [INTERVAL_NOTE, *notes, *([LOST_NOTE] if lost else [])])


def _beside_published(study: Study, arms: Sequence[str], published: pd.DataFrame) -> pd.DataFrame:
    """Return measured rows of these arms, joined by arm with the published benchmarks."""
    tried = [arm for arm in sort_arms({*arms, *published["arm"]}) if arm in study.arms]
    if not tried:
        raise NoDataError(f"no runs of {', '.join(arms)} in {study.name}; make them with: {study.command}")
    rows = measured(study, tried)
    rows.insert(0, "row", [arm_label(arm) for arm in rows["arm"]])
    return rows.merge(_wide(published, "arm"), on="arm", how="left")


def _swept(results: Results, name: str, study_name: str, setting: str) -> pd.DataFrame:
    """Return measured and published rows by the value of one swept setting, whichever of the two has it."""
    study = results.study(study_name, name, seeds=3)
    if setting not in study.runs:
        raise NoDataError(f"{name}: no column {setting} in {study_name}/runs.csv; make it with: {study.command}")
    keys = {str(arm): _key(runs[setting].iloc[0]) for arm, runs in study.runs.groupby("arm", sort=True)}
    rows = measured(study, sort_arms(keys))
    rows.insert(0, "row", rows["arm"].map(keys))
    published = results.published(name)
    published = published.assign(row=[_key(value) for value in published.get("setting_value", [])])
    both = rows.merge(_wide(published, "row"), on="row", how="outer")
    both[["done", "failed", "pruned", "below"]] = both[["done", "failed", "pruned", "below"]].fillna(0).astype(int)
    for name in ("avg_runs", "pass_runs"):
        both[name] = [runs if isinstance(runs, tuple) else () for runs in both[name]]
    order = pd.to_numeric(both["row"], errors="coerce")
    return both.iloc[np.lexsort((both["row"], order.fillna(math.inf)))].reset_index(drop=True)


def _wide(published: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return one row per key, one column per published benchmark and metric, in the paper's order."""
    if published.empty:
        return pd.DataFrame(columns=[key])
    metrics = published["metric"].str.replace("_at_", "@")
    named = published.assign(column="published " + published["benchmark"] + " " + metrics)
    wide = named.pivot(index=key, columns="column", values="value")
    return wide[list(dict.fromkeys(named["column"]))].reset_index()


def _start(began: pd.DataFrame, arm: str) -> dict[str, object]:
    return {name: began[name].get(arm, math.nan) for name in ("bias", "push")}


def _collapse(study: Study, arm: str) -> dict[str, object]:
    done = study.finished[study.finished["arm"] == arm]
    fell = (done["min_length_fraction"] < COLLAPSED_LENGTH) & (done["min_accuracy"] < COLLAPSED_ACCURACY)
    return {
        "min_length": done["min_length_fraction"].mean(),
        "min_accuracy": 100 * done["min_accuracy"].mean(),
        "collapsed": int(fell.sum()),
    }


def _improvement(study: Study, arm: str) -> dict[str, object]:
    if arm == REFERENCE:
        result = summary.Improvement(math.nan, UNKNOWN, 0.0, 0)
    else:
        result = summary.improvement(study.runs, arm, REFERENCE)
    return {
        "improvement": result.probability, "improvement_low": result.interval.low,
        "improvement_high": result.interval.high, "won": result.won, "pairs": result.pairs,
    }  # fmt: skip


def scores(numbers: pd.DataFrame, name: str, digits: int = 1) -> list[str]:
    """Format as `with_interval`; of an arm whose runs lie far apart, column <name>_runs, each run: 0.0, 0.1, 64.1."""
    return [
        ", ".join(number(run, digits) for run in runs) if runs and runs[-1] - runs[0] > APART else text
        for runs, text in zip(numbers[f"{name}_runs"], with_interval(numbers, name, digits), strict=True)
    ]


def of_runs(numbers: pd.DataFrame, name: str) -> list[str]:
    """Format a count of finished runs: 4 of 5; a dash where no run is finished."""
    return [f"{hit} of {done}" if done else NOTHING for hit, done in zip(numbers[name], numbers["done"], strict=True)]


def with_interval(numbers: pd.DataFrame, name: str, digits: int = 1) -> list[str]:
    """Format columns name, name_low, name_high: 95.2 [94.1, 96.3]; without an interval only the number."""
    rows = zip(numbers[name], numbers[f"{name}_low"], numbers[f"{name}_high"], strict=True)
    return [
        number(x, digits) + ("" if math.isnan(low) else f" [{number(low, digits)}, {number(high, digits)}]")
        for x, low, high in rows
    ]


def number(value: float, digits: int) -> str:
    """Format a number with so many digits behind the point; a dash where it is unknown."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def samples_behind(numbers: pd.DataFrame) -> str:
    """Return the responses per problem, k; the letter where no run is finished."""
    k = numbers["k"].max()
    return "k" if math.isnan(k) else f"{k:g}"


def seeds_behind(numbers: pd.DataFrame) -> list[str]:
    """Format how many runs are behind a row; failed and pruned ones are named."""
    cells = []
    for done, failed, pruned in numbers[["done", "failed", "pruned"]].itertuples(index=False):
        tried = done + failed + pruned
        lost = [f"{number} of {tried} {what}" for number, what in ((failed, "failed"), (pruned, "pruned")) if number]
        cells.append(f"{done} ({', '.join(lost)})" if lost else str(done) if tried else NOTHING)
    return cells


def _key(value: object) -> str:
    """Format a swept value so that equal numbers are equal text: 0.90 and 0.9, 50 and 50.0."""
    number = pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0]
    return str(value) if math.isnan(number) else f"{number:g}"
