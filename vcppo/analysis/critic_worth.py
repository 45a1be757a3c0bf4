"""Worth of a critic to each run: its quality, and the run's gain over GRPO at equal responses.

The quality of a critic is its explained variance over the ceiling, what any function of the state could explain: 1 for
an exact critic, 0 for one that knows no more than the mean, below 0 for one that is further from the returns than that.
"""

import pandas as pd

from vcppo.analysis import costs
from vcppo.analysis.data import ACCURACY, LAMBDA, NoDataError, Study, run_key
from vcppo.analysis.tables import APART

REFERENCE = "grpo"
VARIANCE, CEILING, ERROR = "value/explained_variance", "value/explained_variance_ceiling", "value/true_error"
PRETRAINED, PRETRAINED_CEILING = "pretrain/explained_variance", "pretrain/explained_variance_ceiling"
EVALUATION = r"^eval/([^/]+)/avg_at_\d+$"
SEEN = ["start_variance", "start_ceiling", "along_variance", "along_ceiling", "start", "along"]


def compares(study: Study) -> bool:
    """True where a study has GRPO beside critics whose ceiling was measured."""
    known = set(study.curves["metric"].unique()) if "metric" in study.curves else set()
    return REFERENCE in {plain(arm) for arm in study.finished["arm"]} and CEILING in known


def needed(study: Study, figure: str) -> Study:
    """Return the study; NoDataError where it compares no critic with GRPO."""
    if not compares(study):
        raise NoDataError(
            f"{figure}: no finished run of {REFERENCE} beside {CEILING} in {study.name}; make it with: {study.command}"
        )
    return study


def task_of(study: Study) -> str | None:
    """Return the name of the task, as the evaluation has it; None where there was none."""
    if "metric" not in study.curves:
        return None
    names = pd.Series(study.curves["metric"].unique()).str.extract(EVALUATION)[0].dropna()
    return str(names.iloc[0]) if len(names) else None


def plain(arm: str) -> str:
    """Return an arm without the size of its task.

    >>> plain("vcppo,task.lines=30"), plain("gae.lambda_actor=0.9,task.lines=30"), plain("grpo")
    ('vcppo', 'gae.lambda_actor=0.9', 'grpo')
    """
    return ",".join(part for part in arm.split(",") if not part.startswith("task."))


def sizes(study: Study) -> list[str]:
    """Return the settings of the task that the study sweeps."""
    return [name for name in study.runs.columns if name.startswith("task.")]


def worth(study: Study) -> pd.DataFrame:
    """Return one row per finished run, GRPO's among them.

    Columns arm (`plain`), base_seed, seed, the swept settings of the task, gae_lambda (of the actor; NaN where it is
    not swept), end (avg@k, %), mean (accuracy along training, %, all iterations alike), gain_end and gain_mean (less
    the same of GRPO of that base, seed and task, in points; NaN where there is none), and those of `seen`.
    """
    done, key = study.finished, run_key(study.finished)
    accuracy = study.curves[study.curves["metric"] == ACCURACY].groupby(["arm", *key])["value"].mean()
    rows = done[["arm", *key, *sizes(study)]].copy()
    rows["gae_lambda"] = done[LAMBDA] if LAMBDA in done else float("nan")
    rows["end"] = 100 * done["avg_at_k"]
    rows = rows.join(100 * accuracy.rename("mean"), on=["arm", *key]).join(seen(study), on=["arm", *key])
    rows["arm"] = rows["arm"].map(plain)
    same = [*key, *sizes(study)]
    reference = rows.loc[rows["arm"] == REFERENCE, [*same, "end", "mean"]]
    beside = rows[same].merge(reference, on=same, how="left")
    for name in ("end", "mean"):
        rows[f"gain_{name}"] = (rows[name].to_numpy() - beside[name].to_numpy()).astype(float)
    return rows.reset_index(drop=True)


def seen(study: Study) -> pd.DataFrame:
    """Return what each run's critic explained, indexed by arm and run: columns SEEN, NaN where there is no critic.

    At the start: on the held-out responses of value pretraining, of the critic that RL began with; without
    pretraining on the first batch. Along: the mean over the iterations of RL, over the mean of the ceiling over those
    at which it was measured; iterations whose responses all score alike have neither. A critic without any error
    against true values explains what can be explained: it is its own ceiling, and its quality 1.
    """
    curves, key = study.curves.dropna(subset=["value"]), ["arm", *run_key(study.curves)]
    names = (VARIANCE, CEILING, ERROR, PRETRAINED, PRETRAINED_CEILING)
    by_run = {name: curves[curves["metric"] == name].sort_values("step").groupby(key) for name in names}
    first = {name: curves[(curves["metric"] == name) & (curves["step"] == 0)].set_index(key)["value"] for name in names}
    critics = by_run[CEILING]["value"].mean().rename("along_ceiling").to_frame()
    critics["along_variance"] = by_run[VARIANCE]["value"].mean()
    last = by_run[PRETRAINED]["value"].last(), by_run[PRETRAINED_CEILING]["value"].last()
    for name, pretrained, on_batch in (
        ("start_variance", last[0], first[VARIANCE]),
        ("start_ceiling", last[1], first[CEILING]),
    ):
        critics[name] = pretrained.reindex(critics.index).fillna(on_batch.reindex(critics.index))
    exact = by_run[ERROR]["value"].max().reindex(critics.index) == 0
    for name in ("start", "along"):
        variance = critics[f"{name}_variance"]
        critics[f"{name}_ceiling"] = critics[f"{name}_ceiling"].mask(exact, variance)
        critics[name] = (variance / critics[f"{name}_ceiling"]).mask(exact, 1.0)
    return critics[SEEN]


def mean_gain(rows: pd.DataFrame, column: str, *purpose: object, shared_draws: bool) -> tuple[float, float, float]:
    """Return the mean of a column over runs and its interval, of seeds within bases; NaN where runs lie far apart."""
    values = rows.set_index(run_key(rows))[column].dropna()
    middle, interval = costs.mean_interval(values, column, *purpose, shared_draws=shared_draws, apart=APART)
    return middle, interval.low, interval.high
