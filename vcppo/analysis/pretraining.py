"""Value pretraining at more lengths than one: what the critic comes to explain, what that is worth, what it costs."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from vcppo.analysis import costs, style, summary
from vcppo.analysis.critic_worth import PRETRAINED, PRETRAINED_CEILING, mean_gain, needed, worth
from vcppo.analysis.data import ACCURACY, Results, Study, run_key
from vcppo.analysis.picture import Picture, caption, over
from vcppo.maths.run_statistics import APART

NAME = "credit-pretraining"
LEARNT = ("beyond", "fresh", "mixed-returns")  # curves of value pretraining; the other arms' are parts of the first
WORTH = ("first-phase", "vcppo", "converge", "beyond", "fresh", "mixed-returns")
PAID = ("vcppo", "grpo-long")
SMOOTHED = 20  # iterations, of the accuracy against responses
LABELS = {
    "first-phase": "60 updates",
    "vcppo": "220 updates",
    "beyond": "880 updates",
    "converge": "until settled",
    "fresh": "220, fresh responses",
    "mixed-returns": "220, towards λ = 0.95",
    "grpo-long": "GRPO",
}
COLOURS = {"beyond": "#0b4f8a", "fresh": "#2e7d4f", "mixed-returns": "#a33b5a", "converge": "#b8860b"}


@dataclass(frozen=True)
class Computed:
    """What is drawn; every table has arm, base_seed and seed, so that runs can be shown."""

    learnt: pd.DataFrame  # step, value: explained variance on held-out responses
    ceiling: float  # its, of exact values; mean over runs
    settled: pd.DataFrame  # step, value: where the stop rule ended, of the critic it took
    gains: pd.DataFrame  # gain_mean (points) of each run
    means: pd.DataFrame  # arm, gain_mean, low, high
    paid: pd.DataFrame  # step (thousands of responses, those of value pretraining among them), value (accuracy, %)


def load(results: Results) -> Study:
    """Return the study; NoDataError without it, or where it compares no critic with GRPO."""
    study = needed(results.study(NAME, NAME), NAME)
    study.need("curves", NAME)
    return study


def compute(study: Study) -> Computed:
    """Compute all panels."""
    curves, done = study.curves, study.finished
    key = run_key(done)
    variance = summary.metric(curves, PRETRAINED)
    converged = variance[variance["arm"] == "converge"]
    settled = converged.sort_values("step").groupby(["arm", *key], as_index=False).last()
    along = worth(study)
    gains = along.loc[along["arm"].isin(WORTH), ["arm", *key, "gain_mean"]].dropna()
    means = [
        (arm, *mean_gain(some, "gain_mean", study.name, arm, shared_draws=study.shared_draws))
        for arm, some in gains.groupby("arm", sort=True)
    ]
    return Computed(
        variance[variance["arm"].isin(LEARNT)],
        float(summary.metric(curves, PRETRAINED_CEILING)["value"].mean()),
        settled,
        gains,
        pd.DataFrame(means, columns=["arm", "gain_mean", "low", "high"]),
        _paid(study),
    )


def _paid(study: Study) -> pd.DataFrame:
    """Accuracy of sampled responses against all responses taken by then, of PAID."""
    key = ["arm", *run_key(study.finished)]
    before = study.finished.set_index(key)["pretrain_answers"].fillna(0)
    taken = costs.spending(study, NAME).set_index([*key, "step"])["answers"]
    accuracy = summary.metric(study.curves, ACCURACY, PAID, scale=100).sort_values([*key, "step"])
    smooth = accuracy.groupby(key)["value"].rolling(SMOOTHED, min_periods=SMOOTHED).mean()
    accuracy["value"] = smooth.droplevel(list(range(len(key))))
    accuracy = accuracy.dropna().join(taken, on=[*key, "step"]).join(before.rename("before"), on=key)
    accuracy["step"] = (accuracy["answers"] + accuracy["before"]) / 1000
    return accuracy[[*key, "step", "value"]].reset_index(drop=True)


def draw(computed: Computed, *, shared_draws: bool) -> Any:
    """Draw what critics come to explain, what each is worth, and accuracy against all responses."""
    figure, axes = style.new_figure(style.PAGE, 2.4, 1, 3)
    learnt, worths, paid = axes[0]
    for arm in LEARNT:
        look = style.ArmStyle(LABELS[arm], COLOURS[arm], "-", "o")
        some = computed.learnt[computed.learnt["arm"] == arm]
        style.seed_lines(learnt, some, "step", look)
        style.band(learnt, summary.over_seeds(some, ["arm", "step"], shared_draws=shared_draws), "step", look)
    learnt.plot(computed.settled["step"], computed.settled["value"], marker="X", markersize=5, linestyle="none",
                color=COLOURS["converge"], markeredgecolor="white", markeredgewidth=0.4, zorder=4,
                label="the stop rule's end")  # fmt: skip
    learnt.axhline(computed.ceiling, color="0.35", linewidth=0.8, zorder=1)
    learnt.annotate("ceiling", (1, computed.ceiling), xycoords=("axes fraction", "data"), xytext=(0, -2), ha="right",
                    va="top", textcoords="offset points", fontsize=6.5, color="0.35")  # fmt: skip
    learnt.axhline(0, **style.REFERENCE_LINE)
    lowest = float(computed.learnt["value"].quantile(0.02))
    learnt.set(xlabel="critic updates", ylabel="explained variance", xlim=(0, None), ylim=(min(-0.05, lowest), None))
    learnt.legend(loc="lower right", fontsize=5.5)
    style.title(learnt, "a", "what the critic explains")
    for place, arm in enumerate(reversed(WORTH)):
        look = style.ArmStyle(LABELS[arm], COLOURS.get(arm, "0.3"), "-", "o")
        some, one = computed.gains[computed.gains["arm"] == arm], computed.means[computed.means["arm"] == arm]
        style.seed_dots(worths, some["gain_mean"].tolist(), place, look)
        style.interval(worths, float(one["low"].iloc[0]), float(one["high"].iloc[0]), place, look)
        worths.plot(one["gain_mean"], [place], marker="o", markersize=4, color=look.colour, zorder=3)
    worths.axvline(0, **style.REFERENCE_LINE)
    worths.set_yticks(range(len(WORTH)), [LABELS[arm] for arm in reversed(WORTH)])
    worths.set(xlabel="accuracy along, less GRPO's (points)")
    style.title(worths, "b", "what it is worth in RL")
    for arm, name in zip(PAID, ("VC-PPO", LABELS["grpo-long"]), strict=True):
        look = style.ArmStyle(name, style.KNOWN["vcppo" if arm == "vcppo" else "grpo"].colour, "-", "o")
        some = computed.paid[computed.paid["arm"] == arm]
        style.seed_lines(paid, some, "step", look)
        style.band(paid, summary.over_seeds(some, ["arm", "step"], shared_draws=shared_draws), "step", look)
    paid.set(xlabel="all responses taken (thousands)", ylabel="accuracy (%)", xlim=(0, None))
    style.percent(paid)
    paid.legend(loc="lower right")
    style.title(paid, "c", "pretraining counted")
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study = load(results)
    computed = compute(study)
    text = (
        "(a) Explained variance on held-out responses, of the critic after so many updates: on one pool, on fresh "
        f"responses, and towards returns at λ = 0.95; a cross is where the stop rule ended; ceiling: exact values', "
        f"{computed.ceiling:.2f}. (b) Accuracy of sampled responses along RL from that critic, less that of GRPO of "
        "the same base and seed, at equal responses of RL. (c) The same accuracy against all responses taken, value "
        f"pretraining's among them (mean of the last {SMOOTHED} iterations)."
    )
    interval = (
        f"Line or marker: mean over runs; band or bar: 95 % percentile bootstrap over {over(study)}, none where runs "
        f"lie more than {100 * APART:g} points apart; thin lines and dots: runs."
    )
    figure = draw(computed, shared_draws=study.shared_draws)
    return Picture(NAME, figure, caption("What value pretraining is to be.", text, study, interval=interval))
