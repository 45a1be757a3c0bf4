"""Updates that move the policy too far are counted and warned of."""

import dataclasses

import pytest
from trainers import Make

from vcppo.rl import alarm
from vcppo.rl.experience import Updates
from vcppo.rl.metrics import update_kl
from vcppo.rl.policy_update import PolicyUpdate
from vcppo.settings.methods import METHODS

FAR = "its updates moved the policy by "


@pytest.mark.parametrize("method", ["vcppo", "grpo", "dpo", "espo"])
def test_an_absurd_rate_warns_and_is_counted(make: Make, capsys: pytest.CaptureFixture[str], method: str) -> None:
    made = make(method, "policy.learning_rate=0.3", "guard.max_ratio=1e30", "guard.kl_alarm=0.05")
    told = [made.iterate().metrics for _ in range(2)]
    said = [line for line in capsys.readouterr().err.splitlines() if FAR in line]
    assert told[0]["policy/kl_alarm"] == 1.0
    assert told[0]["policy/update_kl"] > 0.05
    assert said[0] == (
        f"iteration 0: its updates moved the policy by {told[0]['policy/update_kl']:.3g} nats a token, guard.kl_alarm "
        "is 0.05: such steps destroy what it knows; lower policy.learning_rate (0.3) or policy.epochs, or raise "
        "policy.warmup_steps"
    )


@pytest.mark.parametrize("method", METHODS)
def test_no_method_warns_at_a_rate_that_suits_it(make: Make, capsys: pytest.CaptureFixture[str], method: str) -> None:
    made = make(method, "policy.learning_rate=0.0003")
    told = [made.iterate().metrics for _ in range(2)]
    assert [metrics["policy/kl_alarm"] for metrics in told] == [0.0, 0.0]
    assert FAR not in capsys.readouterr().err


def test_it_warns_again_only_where_it_is_twice_as_bad(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, moves = make("grpo"), iter([0.04, 0.06, 0.07, 0.13, 0.2, 0.27, 0.01])
    monkeypatch.setattr(alarm, "update_kl", lambda updates: next(moves))
    alarms = [made.iterate().metrics["policy/kl_alarm"] for _ in range(7)]
    said = [line for line in capsys.readouterr().err.splitlines() if FAR in line]
    assert alarms == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert [line.split(":")[0] for line in said] == ["iteration 1", "iteration 3", "iteration 5"]


def test_a_single_update_has_nothing_to_measure(make: Make) -> None:
    told = make("grpo", "policy.minibatches=1").iterate().metrics
    assert not {"policy/kl_alarm", "policy/update_kl"} & told.keys()


def test_how_far_updates_moved_the_policy_is_beyond_where_they_began() -> None:
    """A sampler that stays behind is far from the policy before the first of them."""
    update = PolicyUpdate(0.0, 0.0, 0.5, 0.0, 1.0, 0.0, 1.0)
    kls = [0.5, 0.53, 0.75, 0.625]
    assert update_kl([dataclasses.replace(update, approx_kl=kl) for kl in kls]) == 0.25
    assert update_kl([update]) == update_kl([]) == 0.0


@pytest.mark.parametrize(
    ("deviation", "drifted"), [(None, False), (0.1, False), (0.25, False), (0.3, True), (float("nan"), True)]
)
def test_a_policy_has_drifted_beyond_a_threshold_or_where_nothing_can_be_said(
    deviation: float | None, drifted: bool
) -> None:
    update = PolicyUpdate(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, deviation=deviation)
    assert Updates([update], []).drifted_beyond(0.25) == drifted
    assert not Updates([], []).drifted_beyond(0.25)
