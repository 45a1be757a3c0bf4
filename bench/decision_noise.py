r"""Signal to noise of one decision in an iteration, for embedded tasks with several: computed, with no network.

    python bench/decision_noise.py [--batches 1000] [--set task.lines=120 ...] [TASK ...]
    python bench/decision_noise.py --batches 2000 --set task.misunderstood=1.0 --set task.slip=0.2 \
        --out results/decision-noise.csv

Responses are drawn as demonstrations are, which is what a base policy does that imitates them well. For each rule, a
logit that one kind of decision shares, the gradient of an iteration of 96 responses is the sum of score x advantage
over that kind of decision; printed is its mean over its standard deviation over batches, averaged over the rules that
are not yet known. Advantages are those of GRPO (12 problems x 8 responses, less the group's mean, over its deviation),
and of GAE with an exact critic at several lambdas; `blind` is a critic that knows the mean score and nothing else. For
`endings` also the constant offsets of an exact critic at which the push on a decision turns (lambda = 0.95).

With --out, `labels` by its number of lines, as a table that figures are drawn from: how many decisions count in a
response, and how well each way of making advantages hears of one.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vcppo.settings.chains import EndingsTaskSettings, LabelsTaskSettings, RoutesTaskSettings
from vcppo.settings.loading import load_settings
from vcppo.system.provenance import provenance
from vcppo.tasks.endings import EndingsTask
from vcppo.tasks.labels import LABELS, LabelsTask, binomial
from vcppo.tasks.routes import RoutesTask

Floats = NDArray[np.float64]
PROMPTS, SAMPLES = 12, 8
LAMBDAS = (1.0, 0.99, 0.95, 0.0)
SWEPT_LINES = (10, 15, 20, 30, 45, 60, 90, 120, 180, 240)
ADVANTAGES = ("GRPO", *(f"exact, {x:g}" for x in LAMBDAS), "blind, 1", "blind, 0.95")


@dataclass(frozen=True)
class Decisions:
    """A batch of responses: B responses, K decisions at most, those that were not come to have `there` False."""

    there: NDArray[np.bool_]  # [B, K]
    rule: NDArray[np.int64]  # [B, K] which logit, -1 for one that is not counted
    score: Floats  # [B, K] derivative of the logarithm of the decision's chance by its logit
    values: Floats  # [B, K] expected reward before the decision
    token: NDArray[np.int64]  # [B, K] place of the decision
    length: NDArray[np.int64]  # [B] tokens
    reward: Floats  # [B] -1 or 1


def advantages(batch: Decisions, kind: str) -> Floats:
    """[B, K] of each decision."""
    name, _, gae_lambda = kind.partition(", ")
    if name == "GRPO":
        groups = batch.reward.reshape(PROMPTS, SAMPLES)
        scaled = (groups - groups.mean(axis=1, keepdims=True)) / (groups.std(axis=1, ddof=1, keepdims=True) + 1e-6)
        return np.broadcast_to(scaled.reshape(-1, 1), batch.there.shape)
    if name == "blind":  # all it ever learns comes with the last token
        kept = np.power(float(gae_lambda), to_the_end(batch).astype(np.float64))
        heard: Floats = kept * (batch.reward - batch.reward.mean())[:, None]
        return heard
    return exact(batch, float(gae_lambda))


def exact(batch: Decisions, gae_lambda: float, offset: float = 0.0) -> Floats:
    """GAE of decisions with an exact critic plus a constant: nothing but a decision, and the end, changes a value."""
    total = np.zeros_like(batch.values)
    following, value = np.zeros(len(batch.reward)), batch.reward
    place = batch.length - 1
    for k in reversed(range(batch.there.shape[1])):
        there = batch.there[:, k]
        apart = np.maximum(place - batch.token[:, k], 0)
        here = value - batch.values[:, k] + gae_lambda**apart * following
        total[:, k] = np.where(there, here, 0.0)
        following, value = np.where(there, here, following), np.where(there, batch.values[:, k], value)
        place = np.where(there, batch.token[:, k], place)
    return total - offset * gae_lambda ** to_the_end(batch)


def to_the_end(batch: Decisions) -> NDArray[np.int64]:
    """[B, K] tokens from each decision to its response's last."""
    left: NDArray[np.int64] = np.maximum((batch.length - 1)[:, None] - batch.token, 0)
    return left


def gradients(batch: Decisions, advantage: Floats, rules: int) -> Floats:
    """[rules] sum of score x advantage over the decisions of each."""
    counted = batch.there & (batch.rule >= 0)
    return np.bincount(batch.rule[counted], (batch.score * advantage)[counted], minlength=rules).astype(np.float64)


def labels(task: LabelsTask, rng: np.random.Generator) -> Iterator[Decisions]:
    """Decisions are the labels of misunderstood contexts."""
    dials, seeds = task.settings, task._training
    states = [f"{n:0{dials.digits}d}" for n in range(10**dials.digits)]
    hard = np.array([task.context(state) in task.misunderstood for state in states])
    rules = {context: i for i, context in enumerate(sorted(task.misunderstood))}
    rule = np.array([rules.get(task.context(state), -1) for state in states])
    follow = np.array([[int(task.next_state(state, label)) for label in LABELS] for state in states])
    right = np.array([LABELS.index(task.rule[task.context(state)]) for state in states])
    left = np.array([[hard[int(state)] for state in task.chain(seed)[1:]] for seed in seeds])
    left = left[:, ::-1].cumsum(axis=1)[:, ::-1]  # [problems, lines] hard lines from each on
    slip, allowed = task.slip, task.errors_allowed
    below = np.zeros((dials.lines + 1, dials.lines + 2))  # [tries, allowed + 1]
    for tries in range(dials.lines + 1):
        below[tries, 1:] = np.cumsum(binomial(tries, slip) + [0.0] * (dials.lines - tries))
    while True:
        problem = np.repeat(rng.integers(len(seeds), size=PROMPTS), SAMPLES)
        state = np.array([int(seeds[i]) for i in problem])
        before, errors = right[state], np.zeros(len(problem), dtype=np.int64)
        columns: dict[str, list[NDArray[Any]]] = {"there": [], "rule": [], "score": [], "values": []}
        for line in range(dials.lines):
            state = follow[state, before]
            slipped = hard[state] & (rng.random(len(problem)) < slip)
            chance = below[left[problem, line], np.clip(allowed - errors, -1, None) + 1]
            columns["values"].append(2.0 * chance - 1.0)
            columns["there"].append(hard[state])
            columns["rule"].append(rule[state])
            columns["score"].append(np.where(slipped, -(1.0 - slip), slip))
            errors = errors + slipped
            before = np.where(slipped, 1 - right[state], right[state])
        token = np.broadcast_to(
            np.arange(dials.lines) * dials.line_tokens + 1 + dials.digits, (len(problem), dials.lines)
        )
        stacked = {name: np.stack(column, axis=1) for name, column in columns.items()}
        reward = np.where(errors <= allowed, 1.0, -1.0)
        yield Decisions(**stacked, token=token, length=np.full(len(problem), dials.response_tokens), reward=reward)


def endings(task: EndingsTask, rng: np.random.Generator) -> Iterator[Decisions]:
    """Rule 0: whether to end at a good line; rule 1: at any other."""
    dials, seeds = task.settings, task._training
    lines, hazard = dials.lines - 1, dials.end_hazard  # where there is room for an end
    good = np.array([[task.is_good(state) for state in task.chain(seed)[1 : lines + 1]] for seed in seeds])
    values = np.zeros((len(seeds), lines + 1))
    values[:, lines] = -1.0
    for line in reversed(range(lines)):
        values[:, line] = hazard * np.where(good[:, line], 1.0, -1.0) + (1.0 - hazard) * values[:, line + 1]
    while True:
        problem = np.repeat(rng.integers(len(seeds), size=PROMPTS), SAMPLES)
        ends = rng.random((len(problem), lines)) < hazard
        ended = ends.any(axis=1)
        last = np.where(ended, ends.argmax(axis=1), lines - 1)
        there = np.arange(lines) <= last[:, None]
        token = np.broadcast_to((np.arange(lines) + 1) * dials.line_tokens, there.shape)
        length = np.where(ended, (last + 1) * dials.line_tokens + 2, dials.lines * dials.line_tokens)
        reward = np.where(ended & good[problem, last], 1.0, -1.0)
        score = np.where(ends, 1.0 - hazard, -hazard)
        rule = np.where(good[problem], 0, 1)
        yield Decisions(there, rule, score, values[problem, :lines], token, length, reward)


def routes(task: RoutesTask, rng: np.random.Generator) -> Iterator[Decisions]:
    """Rule 0: to take the long way; rule 1: to go on, at any of its lines."""
    dials = task.settings
    lines, stop, short = dials.lines, dials.stop_chance, dials.take_short
    share = dials.good_guesses / 10
    whole = (1.0 - stop) ** np.arange(lines - 1, -1, -1)  # chance to come to the end, by decisions left
    while True:
        count = PROMPTS * SAMPLES
        takes_short = rng.random(count) < short
        stops = rng.random((count, lines - 1)) < stop
        stopped = stops.any(axis=1)
        last = np.where(stopped, stops.argmax(axis=1), lines - 2)
        there = np.concatenate(
            [np.ones((count, 1), dtype=bool), ~takes_short[:, None] & (np.arange(lines - 1) <= last[:, None])], axis=1
        )
        start = 2.0 * (short * share + (1.0 - short) * whole[0]) - 1.0
        values = np.concatenate([[start], 2.0 * whole[:-1] - 1.0])
        right = np.where(takes_short, rng.random(count) < share, ~stopped)
        token = np.concatenate([[0], 1 + (np.arange(lines - 1) + 1) * dials.line_tokens])
        written = np.where(takes_short, dials.short_lines, np.where(stopped, last + 1, lines))
        length = 1 + written * dials.line_tokens + 2 + np.where(takes_short, 1, dials.digits)
        score = np.concatenate(
            [np.where(takes_short, -(1.0 - short), short)[:, None], np.where(stops, -(1.0 - stop), stop)], axis=1
        )
        rule = np.broadcast_to(np.concatenate([[0], np.ones(lines - 1, dtype=np.int64)]), there.shape)
        shape = there.shape
        yield Decisions(
            there,
            rule,
            score,
            np.broadcast_to(values, shape),
            np.broadcast_to(token, shape),
            length,
            np.where(right, 1.0, -1.0),
        )


def measured(batches: Iterator[Decisions], count: int, rules: int) -> dict[str, Floats]:
    """[rules] mean over deviation of the gradient of each rule, by how advantages are made."""
    sums: dict[str, list[Floats]] = {kind: [] for kind in ADVANTAGES}
    for _, batch in zip(range(count), batches, strict=False):
        for kind, of_kind in sums.items():
            of_kind.append(gradients(batch, advantages(batch, kind), rules))
    return {kind: np.mean(of_kind, axis=0) / np.std(of_kind, axis=0, ddof=1) for kind, of_kind in sums.items()}


def turns_at(batches: Iterator[Decisions], count: int, gae_lambda: float) -> Floats:
    """[2] the offsets of an exact critic at which the mean push on ending turns: at good lines, and at others."""
    truth, per_unit = np.zeros(2), np.zeros(2)
    for _, batch in zip(range(count), batches, strict=False):
        plain = gradients(batch, exact(batch, gae_lambda), 2)
        truth += plain
        per_unit += gradients(batch, exact(batch, gae_lambda, offset=1.0), 2) - plain
    return -truth / per_unit


CASES: dict[str, tuple[str, ...]] = {
    "labels": ("task.name=labels",),
    "labels, 100 contexts": ("task.name=labels", "task.contexts=100"),
    "labels, 120 lines, 100 contexts": ("task.name=labels", "task.contexts=100", "task.lines=120"),
    "labels, fatal": ("task.name=labels", "task.errors_allowed=0", "task.slip=0.12"),
    "labels that kill": ("task.name=labels", "task.wrong_label=kills"),
    "endings": ("task.name=endings",),
    "routes": ("task.name=routes",),
    "routes, 474 lines": ("task.name=routes", "task.lines=474"),
}


def report(name: str, assignments: tuple[str, ...], count: int) -> None:
    """A line of the table for each kind of rule."""
    rng, dials = np.random.default_rng(0), load_settings(assignments=assignments).task
    if isinstance(dials, LabelsTaskSettings):
        task = LabelsTask(dials)
        right = task.demonstrations_right(task.slip)[task.errors_allowed]
        found = measured(labels(task, rng), count, dials.misunderstood_contexts)
        row(
            f"{name}: a misunderstood rule",
            right,
            {kind: float(np.nanmean(of_kind)) for kind, of_kind in found.items()},
        )
        return
    if isinstance(dials, EndingsTaskSettings):
        ending = EndingsTask(dials)
        right, names = ending.demonstrations_right, ("to end at a good line", "to end elsewhere")
        found = measured(endings(ending, rng), count, 2)
    else:
        assert isinstance(dials, RoutesTaskSettings)
        route = RoutesTask(dials)
        right, names = route.demonstrations_right, ("to take the long way", "to go on")
        found = measured(routes(route, rng), count, 2)
    for i, rule in enumerate(names):
        row(f"{name}: {rule}", right, {kind: float(of_kind[i]) for kind, of_kind in found.items()})
    if isinstance(dials, EndingsTaskSettings):
        good, elsewhere = turns_at(endings(ending, rng), count, 0.95)
        print(f"the push on ending turns at an offset of {good:.2f} at good lines, of {elsewhere:.2f} elsewhere")


def by_lines(count: int, assignments: Iterable[str] = (), swept: tuple[int, ...] = SWEPT_LINES) -> pd.DataFrame:
    """A row for each number of lines of `labels` and each way of making advantages.

    Columns task, lines, decisions (that count in a response: lines with a misunderstood rule, mean), right (share of
    demonstrations), advantages, signal_to_noise (mean over misunderstood rules), answers (an iteration's responses),
    batches.
    """
    rows = []
    for lines in swept:
        dials = load_settings(assignments=("task.name=labels", *assignments, f"task.lines={lines}")).task
        assert isinstance(dials, LabelsTaskSettings)
        task = LabelsTask(dials)
        rules = dials.misunderstood_contexts
        found = measured(labels(task, np.random.default_rng(0)), count, rules)
        problems = sum(task._visits.values())
        about = {
            "task": "labels",
            "lines": lines,
            "decisions": sum(visits * number for visits, number in task._visits.items()) / problems,
            "right": task.demonstrations_right(task.slip)[task.errors_allowed],
        }
        size = {"answers": PROMPTS * SAMPLES, "batches": count}
        for kind in ADVANTAGES:
            rows.append({**about, "advantages": kind, "signal_to_noise": float(np.nanmean(found[kind])), **size})
    return pd.DataFrame(rows)


def row(name: str, right: float, found: dict[str, float]) -> None:
    print(
        f"| {name} | {100 * right:.0f} % | " + " | ".join(f"{found[kind]:.1f}" for kind in ADVANTAGES) + " |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[], metavar="CASE")
    parser.add_argument("--set", action="append", default=[], dest="assignments", help="on top of each case")
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="CSV file to write, of `labels` by its number of lines")
    chosen = parser.parse_args()
    if chosen.out is not None:
        table = by_lines(chosen.batches, chosen.assignments).assign(commit=provenance()["commit"], origin="computed")
        table.to_csv(chosen.out, index=False, float_format="%.6g")
        return
    print("| decision | right | " + " | ".join(ADVANTAGES) + " |")
    print("|---" * (2 + len(ADVANTAGES)) + "|")
    for name in chosen.cases or CASES:
        report(name, (*CASES[name], *chosen.assignments), chosen.batches)


if __name__ == "__main__":
    main()
