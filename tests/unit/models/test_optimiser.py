"""The step that every stage takes."""

import pytest
import torch
from tiny import new_policy

from vcppo.errors import TrainingError
from vcppo.models.optimiser import Optimiser, schedule_factor
from vcppo.settings.optimiser import OptimiserSettings


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def give_gradient(model: torch.nn.Module, seed: int, scale: float = 1.0) -> None:
    rng = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = scale * torch.randn(p.shape, generator=rng)


@pytest.mark.parametrize(
    ("schedule", "warmup", "total", "factors"),
    [
        ("constant", 0, 4, [1, 1, 1, 1, 1]),
        ("constant", 4, 9, [0.25, 0.5, 0.75, 1, 1, 1]),
        ("linear", 0, 4, [1, 0.75, 0.5, 0.25, 0, 0]),
        ("linear", 2, 6, [0.5, 1, 1, 0.75, 0.5, 0.25, 0]),
        ("cosine", 0, 4, [1, 0.853553, 0.5, 0.146447, 0]),
        ("linear", 5, 3, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.0]),
    ],
)
def test_schedules_by_pencil(schedule: str, warmup: int, total: int, factors: list[float]) -> None:
    settings = OptimiserSettings(schedule=schedule, warmup_steps=warmup)
    got = [schedule_factor(settings, step, total) for step in range(len(factors))]
    assert got == pytest.approx(factors, abs=1e-6)


def test_the_rate_of_an_update_is_the_one_shown_before_it() -> None:
    model = new_policy()
    optimiser = Optimiser(model, OptimiserSettings(learning_rate=0.01, warmup_steps=10, max_grad_norm=1e9), 20)
    before = weights(model)
    assert optimiser.learning_rate == pytest.approx(0.001)
    give_gradient(model, 0)
    optimiser.step()
    # the first step of Adam is the rate, against the gradient's sign
    assert float((weights(model) - before).abs().max()) == pytest.approx(0.001, rel=1e-3)
    assert optimiser.learning_rate == pytest.approx(0.002)


def test_the_norm_is_told_before_it_is_cut_and_gradients_do_not_linger() -> None:
    model = new_policy()
    optimiser = Optimiser(model, OptimiserSettings(max_grad_norm=0.5), 10)
    give_gradient(model, 0, scale=3.0)
    want = float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    assert optimiser.step() == pytest.approx(want, rel=1e-5)
    assert all(p.grad is None for p in model.parameters())
    assert optimiser.taken == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_stops_before_the_weights_change(value: float) -> None:
    model = new_policy()
    optimiser = Optimiser(model, OptimiserSettings(), 10)
    give_gradient(model, 0)
    next(model.parameters()).grad[0, 0] = value
    before = weights(model)
    with pytest.raises(TrainingError, match=r"gradient norm is (nan|inf) at update 0, expected a finite number"):
        optimiser.step()
    assert torch.equal(weights(model), before)
    assert optimiser.taken == 0


def test_an_optimiser_goes_on_from_its_state_as_if_it_had_never_stopped() -> None:
    settings = OptimiserSettings(schedule="cosine", warmup_steps=2, weight_decay=0.1)
    straight, first = new_policy(), new_policy()
    one, two = Optimiser(straight, settings, 8), Optimiser(first, settings, 8)
    for step in range(3):
        for model, optimiser in ((straight, one), (first, two)):
            give_gradient(model, step)
            optimiser.step()
    resumed = new_policy(seed=5)
    resumed.load_state_dict(first.state_dict())
    three = Optimiser(resumed, settings, 8)
    three.load_state_dict(two.state_dict())
    for step in range(3, 6):
        for model, optimiser in ((straight, one), (resumed, three)):
            give_gradient(model, step)
            optimiser.step()
    assert torch.equal(weights(straight), weights(resumed))
    assert three.taken == 6
