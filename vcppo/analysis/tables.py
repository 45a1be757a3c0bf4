"""Tables 1 to 4 and the table of components: measured, with intervals, beside published.

Each is one frame of numbers (its CSV) and one of text (its Markdown and LaTeX), with notes below.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vcppo.analysis import summary
from vcppo.analysis.data import REFERENCE, NoDataError, Results, Study, bases_of, read_study, run_key, sort_arms
from vcppo.analysis.picture import bases, over
from vcppo.analysis.starts import computed_push, starts
from vcppo.analysis.style import arm_label
from vcppo.analysis.table_text import NOTHING, Table, terminal
from vcppo.maths import run_statistics
from vcppo.maths.statistics import exact_interval

COLLAPSED_LENGTH, COLLAPSED_ACCURACY = 0.25, 0.02
LOWEST = ("min_length_fraction", "min_accuracy")  # during training
APART = 100 * run_statistics.APART  # points between two runs of one arm, beyond which their mean describes neither
LISTED = 5  # runs of such an arm that are listed; more are counted
BELOW = f"ended below {100 * COLLAPSED_ACCURACY:g} %"
COUNT_NOTE = "Counts of runs [exact 95 % interval of the share in %, Clopper-Pearson, were runs independent]."
OTHER_TASK_NOTE = (
    "Published: arXiv 2503.01491, Qwen2.5-32B, single runs without intervals. "
    "Measured: another task and model; compare orders, not numbers."
)
LOST_NOTE = "Failed and pruned runs enter no mean and are not counted as 0."


def interval_note(study: Study) -> str:
    """Return the note on scores and their intervals, which with one base hold for other seeds of it alone."""
    return (
        f"Measured: mean over runs and problems [95 % percentile bootstrap over {over(study)}, and problems, crossed; "
        f"none with one run, or where all answers are alike]. Where runs of an arm end {run_statistics.TWO_ENDS}, "
        f"a mean would describe none of them: each run instead, or, of more than {LISTED}, how many ended below "
        f"{100 * COLLAPSED_ACCURACY:g} % [exact 95 % interval of the share in %] and the range of the others."
    )


def measured(study: Study, arms: Iterable[str]) -> pd.DataFrame:
    """Return one row per arm: scores in per cent with intervals, and how many runs and problems are behind them.

    Columns arm, avg (mean), avg_low, avg_high (NaN where runs end apart), avg_median, avg_runs (every run, lowest
    first), the same of pass, below (runs that ended below 2 %), below_bases (of how many bases one did), done, failed,
    pruned, bases, problems, k.
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
            if len(table) and not run_statistics.ends_apart(scores):
                interval = summary.crossed_interval(
                    table, "table", study.name, name, arm, shared_draws=study.shared_draws
                )
                low, high = 100 * interval.low, 100 * interval.high
            row |= {f"{name}_low": low, f"{name}_high": high, f"{name}_median": 100 * float(scores.median())}
            row[f"{name}_runs"] = tuple(sorted(100 * scores))
        ends = summary.final_scores(runs, arm)
        row |= counted(ends.index[ends < COLLAPSED_ACCURACY], "below") | {"bases": len(set(bases_of(ends.index)))}
        row |= {status: int((runs["status"] == status).sum()) for status in ("done", "failed", "pruned")}
        row |= {name: runs[name].max() for name in ("problems", "k")}
        rows.append(row)
    return pd.DataFrame(rows)


def counted(runs: pd.Index, name: str) -> dict[str, object]:
    """Return how many runs there are, and how many bases they began with, as columns name, name_bases."""
    return {name: len(runs), f"{name}_bases": len(set(bases_of(runs)))}


def table1(results: Results) -> Table:
    """Return the table of GRPO against VC-PPO."""
    study = results.study("components", "table1")
    numbers = by_arm(study, ["grpo", "vcppo"], results.published("table1"))
    return beside_published(
        study, "table1", "Table 1. GRPO and VC-PPO", numbers, [OTHER_TASK_NOTE, "Published at 16K tokens of context."]
    )


def table2(results: Results) -> Table:
    """Return the table of every component, both readings of the row `w/o Decoupled-GAE`."""
    study = results.study("components", "table2")
    published = results.published("table2")
    twin = published[published["arm"] == "vcppo-no-decouple-1.0"].assign(arm="vcppo-no-decouple-0.95")
    numbers = by_arm(study, study.arms, pd.concat([published, twin], ignore_index=True))
    notes = [
        OTHER_TASK_NOTE,
        "Published at 8K tokens of context.",
        "`One λ`: the paper's row `VC-PPO w/o Decoupled-GAE`. It does not say which λ actor and critic then share; "
        "the row equals table 4's λ actor = 1.0 in three of four cells, so λ = 1 is the likelier reading. Both were "
        "run, and the one published row stands beside both.",
        "The published VC-PPO row is table 4's λ actor = 0.99 within 0.3 in each cell, not the stated default 0.95.",
        "The paper has no row without value pretraining; VAPO (arXiv 2504.05118, table 1) without it has 11 on "
        "AIME 2024, avg@32.",
    ]
    return beside_published(study, "table2", "Table 2. What each component is worth", numbers, notes)


def table3(results: Results) -> Table:
    """Return the table of value-pretraining steps."""
    study = results.study("pretrain-steps", "table3", seeds=3)
    numbers = _swept(results, "table3", study, "pretrain.steps")
    notes = [
        OTHER_TASK_NOTE,
        "Published at 8K tokens of context; a step there is probably a rollout iteration of 8 to 16 critic updates, "
        "here it is one update.",
    ]
    return beside_published(
        study, "table3", "Table 3. Value-pretraining steps", numbers, notes, first="pretraining steps"
    )


def table4(results: Results) -> Table:
    """Return the table of the actor's λ, the critic's being 1."""
    study = results.study("lambda-actor", "table4", seeds=3)
    numbers = _swept(results, "table4", study, "gae.lambda_actor")
    notes = [OTHER_TASK_NOTE, "Published at 8K tokens of context; λ critic is 1 in every row."]
    return beside_published(study, "table4", "Table 4. λ of the actor", numbers, notes, first="λ actor")


def components(study: Study) -> Table:
    """Return the outcome of each arm: scores, lowest points during training, how often it beats PPO."""
    numbers = measured(study, study.arms)
    began = starts(study).groupby("arm")[["bias", "push"]].mean()
    by_law = computed_push(study)
    began["law"] = by_law.groupby(level=0).mean() if len(by_law) else math.nan
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
            "push by the law at that bias": [number(x, 2) for x in numbers["law"]],
            "push on stopping at the start": [number(x, 2) for x in numbers["push"]],
            "shortest / start": [number(x, 2) for x in numbers["min_length"]],
            "lowest accuracy (%)": [number(x, 1) for x in numbers["min_accuracy"]],
            "collapsed": of_runs(numbers, "collapsed"),
            "P(better than PPO)": with_interval(numbers, "improvement", 2),
            "p": [summary.p_value(p) for p in numbers["p"]],
            "pairs won": [
                f"{won:g} of {pairs:g}" if pairs else NOTHING
                for won, pairs in zip(numbers["won"], numbers["pairs"], strict=True)
            ],
            "seeds": seeds_behind(numbers),
        }
    )
    if REFERENCE not in study.arms:
        shown = shown.drop(columns=["P(better than PPO)", "p", "pairs won"])
    unknown = {
        "bias": "critic's bias at the start",
        "law": "push by the law at that bias",
        "push": "push on stopping at the start",
    }
    shown = shown.drop(columns=[column for name, column in unknown.items() if numbers[name].isna().all()])
    notes = [
        interval_note(study) + f" {number(numbers['problems'].max(), 0)} problems, {k} answers each.",
        "Shortest / start, lowest accuracy: mean over runs of each run's lowest point during training; median where "
        f"they end {run_statistics.TWO_ENDS}.",
        f"Collapsed: mean length below {COLLAPSED_LENGTH:g} of its start and accuracy below "
        f"{100 * COLLAPSED_ACCURACY:g} % at some point of training.",
        COUNT_NOTE,
    ]
    if numbers["push"].notna().any():
        notes.append(
            "At the start: before the first update. Bias: mean of value less Monte-Carlo return. Push: gradient of the "
            "decision to stop, mean over answers; above 0 the first updates will make answers shorter "
            "(vcppo/maths/collapse_law.py)."
        )
    if numbers["law"].notna().any():
        notes.append(
            "Push by the law: what a critic with that bias at every token would give, on the chain that the first "
            "responses of the base show; mean over runs. Where it is above 0 responses get shorter by the law."
        )
    if REFERENCE in study.arms:
        within = ", within bases" if len(bases(study.runs)) > 1 else ""
        notes.append(
            "P: chance that a run ends above a run of PPO, ties half [exact 95 % interval, Clopper-Pearson, of as many "
            "independent pairs as the arm with fewer runs has]. p: permutation test of the difference of means, "
            f"two-sided{within}. Pairs won: of all pairs of a run and one of PPO."
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


def beside_published(
    study: Study, name: str, title: str, numbers: pd.DataFrame, notes: Sequence[str], first: str = "arm"
) -> Table:
    """Return a table that has measured and published columns."""
    k = samples_behind(numbers)
    shown = pd.DataFrame(
        {
            first: numbers["row"],
            f"measured avg@{k} (%)": scores(numbers, "avg"),
            f"measured pass@{k} (%)": scores(numbers, "pass"),
            **({"mean along training (%)": scores(numbers, "along")} if "along" in numbers else {}),
            BELOW: of_runs(numbers, "below"),
            "seeds": seeds_behind(numbers),
            "problems": [number(x, 0) for x in numbers["problems"]],
        }
    )
    for column in numbers.columns[numbers.columns.str.startswith("published ")]:
        shown[column] = [number(x, 1) for x in numbers[column]]
    lost = numbers["failed"].sum() + numbers["pruned"].sum() > 0
    return Table(name, title, numbers, shown, [interval_note(study), *notes, *([LOST_NOTE] if lost else [])])


def by_arm(study: Study, arms: Sequence[str], published: pd.DataFrame) -> pd.DataFrame:
    """Return measured rows of these arms, joined by arm with the published benchmarks."""
    tried = [arm for arm in sort_arms({*arms, *published["arm"]}) if arm in study.arms]
    if not tried:
        raise NoDataError(f"no runs of {', '.join(arms)} in {study.name}; make them with: {study.command}")
    return by_label(measured(study, tried), published)


def by_label(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return measured rows with the arms' names in print, and the published benchmarks of those that have some."""
    labelled = rows.copy()
    labelled.insert(0, "row", [arm_label(arm) for arm in rows["arm"]])
    return labelled.merge(_wide(published, "arm"), on="arm", how="left")


def _swept(results: Results, name: str, study: Study, setting: str) -> pd.DataFrame:
    """Return measured and published rows by the value of one swept setting, whichever of the two has it."""
    if setting not in study.runs:
        raise NoDataError(f"{name}: no column {setting} in {study.name}/runs.csv; make it with: {study.command}")
    keys = {str(arm): setting_key(runs[setting].iloc[0]) for arm, runs in study.runs.groupby("arm", sort=True)}
    return by_setting(measured(study, sort_arms(keys)), keys, results.published(name))


def by_setting(rows: pd.DataFrame, keys: Mapping[str, str], published: pd.DataFrame) -> pd.DataFrame:
    """Return measured rows and published ones by the value of a setting, whichever of the two has it, in its order.

    Args:
        rows: as `measured`, perhaps with further columns. keys: arm -> the value, as `setting_key` writes it.
    """
    rows = rows.copy()
    rows.insert(0, "row", rows["arm"].map(keys))
    published = published.assign(row=[setting_key(value) for value in published.get("setting_value", [])])
    both = rows.merge(_wide(published, "row"), on="row", how="outer")
    counts = ["done", "failed", "pruned", "below", "below_bases", "bases"]
    both[counts] = both[counts].fillna(0).astype(int)
    for name in both.columns[both.columns.str.endswith("_runs")]:
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
    return {name: began[name].get(arm, math.nan) for name in ("bias", "law", "push")}


def _collapse(study: Study, arm: str) -> dict[str, object]:
    done = study.finished[study.finished["arm"] == arm]
    done = done.set_index(run_key(done))
    fell = (done["min_length_fraction"] < COLLAPSED_LENGTH) & (done["min_accuracy"] < COLLAPSED_ACCURACY)
    apart = run_statistics.ends_apart(done["avg_at_k"])
    middle = {name: column.median() if apart else column.mean() for name, column in done[list(LOWEST)].items()}
    return {
        "min_length": middle["min_length_fraction"],
        "min_accuracy": 100 * middle["min_accuracy"],
        **counted(done.index[fell], "collapsed"),
    }


def _improvement(study: Study, arm: str) -> dict[str, object]:
    result = summary.NO_PAIRS if arm == REFERENCE else summary.improvement(study.runs, arm, REFERENCE)
    return {
        "improvement": result.probability, "improvement_low": result.interval.low,
        "improvement_high": result.interval.high, "won": result.won, "pairs": result.pairs, "p": result.p,
    }  # fmt: skip


def scores(numbers: pd.DataFrame, name: str, digits: int = 1) -> list[str]:
    """Format as `with_interval`; an arm whose runs lie far apart, column <name>_runs, as `runs_apart`."""
    return [
        runs_apart(runs, digits) if run_statistics.ends_apart(runs, 100) else text
        for runs, text in zip(numbers[f"{name}_runs"], with_interval(numbers, name, digits), strict=True)
    ]


def runs_apart(runs: Sequence[float], digits: int = 1) -> str:
    """Format the runs of an arm that end in two ways, in per cent, lowest first: each, or how many ended below 2 %.

    >>> runs_apart((0.0, 0.1, 64.1)), runs_apart((0.0,) * 23 + (63.7, 92.0)), runs_apart((3.0, 4, 30, 40, 50, 82))
    ('0.0, 0.1, 64.1', '23 of 25 below 2 [74, 99], others 63.7 to 92.0', '0 of 6 below 2 [0, 46], others 3.0 to 82.0')
    """
    if len(runs) <= LISTED:
        return ", ".join(number(run, digits) for run in runs)
    floor = 100 * COLLAPSED_ACCURACY
    others = [run for run in runs if run >= floor]
    below = count(len(runs) - len(others), len(runs), f" below {floor:g}")
    return f"{below}, others {number(others[0], digits)} to {number(others[-1], digits)}"


def count(hits: int, trials: int, what: str = "") -> str:
    """Format a count with the exact interval of its share, in per cent.

    >>> count(4, 5)
    '4 of 5 [28, 99]'
    """
    interval = exact_interval(hits, trials)
    return f"{hits} of {trials}{what} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def of_runs(numbers: pd.DataFrame, name: str) -> list[str]:
    """Format a count of finished runs: 4 of 5 [28, 99]; a dash where no run is finished.

    With several bases, and the column <name>_bases, followed by how many of them have such a run.
    """
    cells = []
    for row in numbers.to_dict("records"):
        text = count(row[name], row["done"]) if row["done"] else NOTHING
        if row["bases"] > 1 and row[name] and f"{name}_bases" in row:
            text += f" in {row[f'{name}_bases']} of {row['bases']} bases"
        cells.append(text)
    return cells


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
    """Format how many runs are behind a row, and of how many bases; failed and pruned ones are named."""
    cells = []
    for done, failed, pruned, several in numbers[["done", "failed", "pruned", "bases"]].itertuples(index=False):
        tried = done + failed + pruned
        lost = [f"{several} bases"] if several > 1 else []
        lost += [f"{number} of {tried} {what}" for number, what in ((failed, "failed"), (pruned, "pruned")) if number]
        cells.append(f"{done} ({', '.join(lost)})" if lost else str(done) if tried else NOTHING)
    return cells


def setting_key(value: object) -> str:
    """Format a swept value so that equal numbers are equal text: 0.90 and 0.9, 50 and 50.0."""
    number = pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0]
    return str(value) if math.isnan(number) else f"{number:g}"
