"""The end of value pretraining: on curves by pencil, on noise, and on figure 6 of arXiv:2503.01491."""

import csv
import math
import random
from itertools import pairwise
from pathlib import Path

import pytest

from vcppo.maths.settling import Measurement, Settled, best_of, first_phase_end, settled
from vcppo.settings.critic import PretrainSettings

FIGURE6 = Path(__file__).parents[3] / "results" / "paper" / "figure6.csv"
DEFAULTS = PretrainSettings()


def at(losses: list[float], every: int = 10) -> list[Measurement]:
    """Measurements at steps 0, 10, 20, ..."""
    return [Measurement(every * i, loss, 0.0) for i, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "end"),
    [
        ([1.0, 1.0, 1.0], Settled(20, 0)),
        ([1.0, 1.0], None),
        ([1.0, 0.95, 0.91], Settled(20, 20)),  # too little by any reckoning, and yet the best
        ([1.0, 0.95, 0.89, 0.85, 0.81], Settled(40, 40)),  # 0.89 of 1 counts; 0.81 of 0.89 does not
        ([1.0, 0.95, 0.89, 0.85, 0.80], None),  # 0.80 does
        ([1.0, 0.8, 0.8, 0.8], Settled(30, 10)),
        ([1.0, 2.0, 3.0], Settled(20, 0)),
        ([1.0, 0.5, 0.6, 0.4, 0.45, 0.39], Settled(50, 50)),
        ([1.0, 0.5, 0.6, 0.4, 0.45, 0.45], Settled(50, 30)),
        ([math.inf, math.inf, math.inf], Settled(20, 0)),
        ([math.inf, 1.0, 1.0, 1.0], Settled(30, 10)),
    ],
)
def test_settled_by_pencil(losses: list[float], end: Settled | None) -> None:
    """Patience of 20 updates, a tenth of the loss."""
    assert settled(at(losses), patience=20, min_delta=0.1) == end


def test_patience_is_of_updates_however_often_they_are_measured() -> None:
    for every in (1, 4, 10, 25):
        flat = at([1.0] * 200, every)
        assert settled(flat, patience=100, min_delta=0.01) == Settled(100, 0)
    assert settled(at([1.0] * 200, 30), patience=100, min_delta=0.01) == Settled(120, 0)  # the first that sees it


def test_small_gains_add_up() -> None:
    """0.9 % at every measurement: for the rule that compared with the lowest loss so far, that was standing still."""
    steady = at([0.991**i for i in range(100)])
    assert settled(steady, patience=20, min_delta=0.01) is None
    assert all(b.loss > a.loss * 0.99 for a, b in pairwise(steady))
    slow = at([0.9985**i for i in range(100)])  # 1 % in 67 updates
    assert settled(slow, patience=DEFAULTS.patience, min_delta=DEFAULTS.min_delta) is None
    too_slow = at([0.9995**i for i in range(100)])  # 1 % in 201
    assert settled(too_slow, patience=DEFAULTS.patience, min_delta=DEFAULTS.min_delta) == Settled(100, 100)


def two_phases(plateau: int) -> list[Measurement]:
    """A critic learns the mean in 40 updates, nothing for so many more, then that of 30 % of the variance."""
    losses = []
    for step in range(0, 1001, 10):
        offset = 2.0 * math.exp(-step / 8)
        learnt = 0.15 * (1.0 - math.exp(-max(step - 40 - plateau, 0) / 150))
        losses.append(0.5 + offset - learnt)
    return [Measurement(10 * i, loss, 0.0, 0.5) for i, loss in enumerate(losses)]


def test_a_plateau_between_the_phases_is_waited_out() -> None:
    curve = two_phases(plateau=60)
    end = settled(curve, patience=DEFAULTS.patience, min_delta=DEFAULTS.min_delta)
    assert end is not None
    loss = {m.step: m.loss for m in curve}
    assert loss[end.best] < 0.36  # of 0.35 at best, and 0.5 between the phases
    assert settled(curve, patience=40, min_delta=0.01) == Settled(90, 90)
    assert first_phase_end(curve) == 50  # 2 exp(-50 / 8) is 0.004, within a percent of 0.5; at 40 it is 0.013


@pytest.mark.parametrize("spread", [0.002, 0.01, 0.05])
def test_noise_does_not_run_for_ever(spread: float) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        noise = at([0.3 * (1.0 + rng.gauss(0.0, spread)) for _ in range(1000)])
        end = settled(noise, patience=DEFAULTS.patience, min_delta=DEFAULTS.min_delta)
        assert end is not None
        assert end.stopped <= 1000
        assert end.best == min(noise[: end.stopped // 10 + 1], key=lambda m: m.loss).step


def test_the_best_is_the_first_of_the_lowest() -> None:
    assert best_of(at([3.0, 1.0, 2.0, 1.0])) == 10


def figure6(every: int) -> list[Measurement]:
    """The published curve, straight between its points, as if measured every so many updates."""
    with FIGURE6.open() as file:
        points = [(int(row["step"]), float(row["value"])) for row in csv.DictReader(file)]
    curve = []
    for step in range(every, 1601, every):
        (x0, y0), (x1, y1) = next(((a, b) for a, b in pairwise(points) if step <= b[0]))
        curve.append(Measurement(step, y0 + (y1 - y0) * (max(step, x0) - x0) / (x1 - x0), math.nan, 0.147))
    return curve


def creeping(measurements: list[Measurement], patience: int, tolerance: float) -> int | None:
    """The rule of before: measurements without a gain on the lowest loss so far."""
    best, waited = math.inf, 0
    for m in measurements:
        waited = 0 if m.loss < best * (1 - tolerance) else waited + 1
        best = min(best, m.loss)
        if waited >= patience:
            return m.step
    return None


def test_figure_6_is_not_cut_in_its_first_phase() -> None:
    """The loss of the best constant is not published; 0.147 is half of 1 - 0.84^2, 0.84 being figure 2's mean."""
    curve = figure6(10)
    assert creeping(curve, 2, 0.01) == 100  # with 0.143: the mean, and next to nothing of tokens
    end = settled(curve, patience=DEFAULTS.patience, min_delta=DEFAULTS.min_delta)
    assert end == Settled(660, 600)
    loss = {m.step: m.loss for m in curve}
    assert loss[end.best] == pytest.approx(0.1065)  # of 0.105 after 1,600 updates
    assert first_phase_end(curve) == 70
    patient = settled(curve, patience=700, min_delta=DEFAULTS.min_delta)
    assert patient is None  # it sees the last gain, after 1,250 updates
    assert best_of(curve) == 1400
    for every in (8, 25, 50):
        found = settled(figure6(every), patience=DEFAULTS.patience, min_delta=DEFAULTS.min_delta)
        assert found is not None
        assert (found.best, found.stopped <= 700) == (600, True)


def test_the_first_phase_ends_where_a_constant_is_no_better() -> None:
    unknown = at([1.0, 0.5, 0.1])
    assert first_phase_end(unknown) is None
    measured = [Measurement(10 * i, loss, 0.0, 0.5) for i, loss in enumerate([2.0, 0.506, 0.504, 0.4])]
    assert first_phase_end(measured) == 20
    assert first_phase_end(measured[:2]) is None
    assert first_phase_end(measured[3:]) == 30
