"""Tidy files of a study's measurements, from which figures are drawn: Parquet where rows are many, else CSV."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from vcppo.settings.fixed import COUNTED_COSTS
from vcppo.store.summary import summary
from vcppo.tracking.measured import MeasuredCell, MeasuredStudy, Tables
from vcppo.tracking.pretraining_costs import pretrain_compute_tokens, pretrain_responses
from vcppo.tracking.table_files import Row, write_files

# What curves.parquet leaves out unless `--metrics` names it, by pattern, and why. All else that RL, the evaluation and
# the value pretraining of a run have in their journals is there. The stages before them serve many cells, and RTO's
# preference stage names its metrics as RL does: OUT/cache/STAGE/ADDRESS/journal.jsonl has theirs.
LEFT_OUT = {"system/*": "the process on the machine that it happened to run on; cost/peak_memory_mb is the run's"}

KEY = ("study", "arm", "base_seed", "seed")  # which run a row is of
PROVENANCE = ("run_id", "commit", "settings_hash", "n", "origin")  # the seeds are columns further left
SCORES = (
    "avg_at_k",
    "pass_at_k",
    "k",
    "problems",
    "final_length_tokens",
    "start_length_tokens",
    "min_length_fraction",
    "min_accuracy",
    "final_accuracy",
    "start_reward_cosine",
    "start_score_z",
    "start_length_z",
    "early_warning_at",
    "pretrain_steps_done",
    "pretrain_answers",
    "pretrain_compute_tokens",
    *COUNTED_COSTS,
    "train_s",
    "peak_memory_mb",
)
POSITION_COLUMNS = (
    "position",
    "from_end",
    "n",
    "value_mean",
    "return_mean",
    "value_bias",
    "explained_variance",
    "advantage_mean",
)
CALIBRATION_COLUMNS = ("bin_low", "bin_high", "predicted_mean", "return_mean", "n")
TRUTH_COLUMNS = ("answer", "position", "fraction", "truth", "estimate")
PROBLEM_COLUMNS = ("problem", "samples", "correct", "unreadable", "length_tokens")


def export(study: MeasuredStudy, destination: Path, *, metrics: Sequence[str] = ()) -> list[Path]:
    """Write runs.csv, curves.parquet, positions.parquet, calibration.csv and problems.parquet of a study.

    Where runs measured true values, truth.csv too. All files are replaced, or none; files of an
    earlier export without rows in this one are removed.

    n is the number of responses behind a row of runs.csv and curves.parquet, of tokens in positions.parquet
    and calibration.csv, of responses to the problem in problems.parquet. Runs that failed or were pruned have a row in
    runs.csv, without scores, and no other. The same study gives the same bytes. The column `given` is there where the
    study was given settings on the command line: those, as options.

    Args:
        destination: the folder of the files, results/<study>.
        metrics: patterns of the names that curves.parquet holds; none: all but those of LEFT_OUT.
    """
    name, cells = study.name, study.cells
    done = [cell for cell in cells if cell.done]
    swept = sorted({key for cell in cells for key in cell.swept} - {"base_seed"})  # which has a column anyway
    given = {"given": study.given} if study.given else {}
    truth = [row for cell in done for row in truth_rows(name, cell)]
    truth_columns = (*KEY, "step", *TRUTH_COLUMNS, *PROVENANCE)
    return write_files(
        destination,
        {
            **({"truth.csv": (truth_columns, truth)} if truth else {}),
            "runs.csv": (
                run_columns(swept, given=bool(given)),
                [run_row(name, cell, swept) | given for cell in cells],
            ),
            "curves.parquet": (
                (*KEY, "step", "metric", "value", *PROVENANCE),
                (row for cell in done for row in curve_rows(name, cell, metrics)),
            ),
            "positions.parquet": critic_table(name, done, "critic_by_position", POSITION_COLUMNS),
            "calibration.csv": critic_table(name, done, "critic_calibration", CALIBRATION_COLUMNS),
            "problems.parquet": (
                (*KEY, *PROBLEM_COLUMNS, *PROVENANCE),
                (row for cell in done for row in problem_rows(name, cell)),
            ),
        },
    )


def run_columns(swept: Sequence[str], *, given: bool = False) -> tuple[str, ...]:
    """Return the header of runs.csv."""
    return (
        "study",
        "cell",
        "arm",
        "base_seed",
        "seed",
        "status",
        "error",
        "wall_s",
        "steps",
        *swept,
        *SCORES,
        *(("given",) if given else ()),
        *PROVENANCE,
    )


def run_row(study: str, cell: MeasuredCell, swept: Sequence[str]) -> Row:
    """Return a cell's row of runs.csv."""
    scored = scores(cell) if cell.done else {}
    responses = scored["k"] * scored["problems"] if scored.get("k") and scored.get("problems") else None
    return {
        **key_of(study, cell),
        "cell": cell.cell,
        "status": cell.state,
        "error": cell.error,
        "wall_s": cell.wall_s,
        "steps": len(cell.curves.get("rollout/accuracy", {})),
        **{name: cell.swept.get(name) for name in swept},
        **scored,
        **provenance(cell, responses),
    }


def key_of(study: str, cell: MeasuredCell) -> Row:
    """Return the columns of KEY."""
    return {"study": study, "arm": cell.arm, "base_seed": cell.base_seed, "seed": cell.seed}


def provenance(cell: MeasuredCell, n: int | None) -> Row:
    """Return the provenance columns of a row; n: responses, problems or tokens behind its number."""
    code = {"commit": cell.commit, "settings_hash": cell.settings_hash}
    return {"run_id": cell.run_id, **code, "n": n, "origin": "measured"}


def scores(cell: MeasuredCell) -> Row:
    """Return a finished run's scores: its evaluation, its summary, and its costs."""
    k, curves = cell.settings.evaluation.samples, cell.curves
    row: Row = {"pretrain_steps_done": cell.pretrain_steps, "k": k, "problems": cell.evaluated_problems}
    row |= {"pretrain_answers": pretrain_responses(cell), "pretrain_compute_tokens": pretrain_compute_tokens(cell)}
    for kind in ("avg", "pass"):
        evaluated = [by_step for name, by_step in curves.items() if re.fullmatch(rf"eval/.+/{kind}_at_{k}", name)]
        row[f"{kind}_at_k"] = evaluated[0][max(evaluated[0])] if evaluated else None
    ends = {"train_s": "elapsed_s", "peak_memory_mb": "peak_memory_mb", **{name: name for name in COUNTED_COSTS}}
    for column, metric in ends.items():
        by_step = curves.get(f"cost/{metric}")
        row[column] = by_step[max(by_step)] if by_step else None
    return row | summary(curves)


def curve_rows(study: str, cell: MeasuredCell, metrics: Sequence[str] = ()) -> list[Row]:
    """Rows of curves.parquet: RL and evaluation, and value pretraining up to this cell's critic."""
    rows, key, origin = [], key_of(study, cell), provenance(cell, None)
    before = {
        name: {step: value for step, value in by_step.items() if step <= cell.pretrain_steps}
        for name, by_step in (cell.pretraining.curves.items() if cell.pretraining is not None else ())
    }
    for name, by_step in sorted({**before, **cell.curves}.items()):
        if not is_exported(name, metrics):
            continue
        for step, value in sorted(by_step.items()):
            number = None if math.isnan(value) else value + 0.0  # a tracking server stores no -0.0
            n = responses_behind(cell, name, step)
            rows.append({**key, "step": step, "metric": name, "value": number, **origin, "n": n})
    return rows


def is_exported(metric: str, patterns: Sequence[str] = ()) -> bool:
    """Return whether curves.parquet holds a metric, given the patterns of `--metrics`.

    >>> is_exported("mismatch/kl"), is_exported("system/rss_mb"), is_exported("system/rss_mb", ["system/*"])
    (True, False, True)
    """
    if patterns:
        return any(fnmatch(metric, pattern) for pattern in patterns)
    return not any(fnmatch(metric, pattern) for pattern in LEFT_OUT)


def responses_behind(cell: MeasuredCell, metric: str, step: int) -> int:
    """Return the number of responses behind a point of a curve."""
    settings = cell.settings
    if metric in ("pretrain/loss", "pretrain/grad_norm"):
        return settings.pretrain.batch
    if metric.startswith("pretrain/"):
        return settings.pretrain.held_out
    if metric.startswith("eval/"):
        at_k = re.search(r"_at_(\d+)$", metric)
        final = step == max(cell.curves[metric])
        samples = settings.evaluation.samples if final else settings.evaluation.samples_during
        return cell.evaluated_problems * (int(at_k[1]) if at_k else samples)
    return settings.rollout.prompts * settings.rollout.samples_per_prompt


def table_rows(study: str, cell: MeasuredCell, stage: str, tables: Tables, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of positions.parquet and calibration.csv: columns of a table by step, one row per bin."""
    for step, table in sorted(tables.items()):
        row = {
            "study": study,
            "arm": cell.arm,
            "base_seed": cell.base_seed,
            "seed": cell.seed,
            "stage": stage,
            "step": step,
        }
        for i, n in enumerate(table["n"]):
            yield row | provenance(cell, n) | {name: table[name][i] for name in columns}


def problem_rows(study: str, cell: MeasuredCell) -> list[Row]:
    """Rows of problems.parquet: the final evaluation."""
    tables = cell.tables.get("problems")
    if not tables:
        return []
    table = tables[max(tables)]
    row = key_of(study, cell)
    return [
        row | {name: table[name][i] for name in PROBLEM_COLUMNS} | provenance(cell, samples)
        for i, samples in enumerate(table["samples"])
    ]


def truth_rows(study: str, cell: MeasuredCell) -> list[Row]:
    """Rows of truth.csv: states with their true values and the estimates that training used.

    n is the number of continuations behind a true value, 0 where it was computed.
    """
    return [
        key_of(study, cell)
        | {"step": step}
        | {name: table[name][i] for name in TRUTH_COLUMNS}
        | provenance(cell, table["samples"][i] if "samples" in table else cell.settings.record.truth_samples)
        for step, table in sorted(cell.tables.get("true_values", {}).items())
        for i in range(len(table["truth"]))
    ]


def critic_table(
    study: str, cells: Sequence[MeasuredCell], name: str, columns: Sequence[str]
) -> tuple[Sequence[str], Iterable[Row]]:
    """Return a table of value pretraining and RL, all steps of all cells."""
    rows: list[Row] = []
    for cell in cells:
        if cell.pretraining is not None:
            all_steps = cell.pretraining.tables.get(name, {})
            within = {step: table for step, table in all_steps.items() if step <= cell.pretrain_steps}
            rows += table_rows(study, cell, "value-pretraining", within, columns)
        rows += table_rows(study, cell, "rl", cell.tables.get(name, {}), columns)
    remaining = [column for column in PROVENANCE if column not in columns]
    return (*KEY, "stage", "step", *columns, *remaining), rows
