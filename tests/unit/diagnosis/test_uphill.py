"""Where the policy gradient points, in words."""

from typing import Literal

from vcppo.diagnosis.schema import Alignment, CriticPart, Estimate
from vcppo.diagnosis.uphill import uphill


def cosine(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def at(
    gae_lambda: float,
    reward: Estimate,
    length: Estimate | None = None,
    *,
    ceiling: Estimate | None = None,
    method: Literal["gradient", "surrogate"] = "gradient",
) -> Alignment:
    nothing = cosine(0.0)
    return Alignment(
        gae_lambda=gae_lambda,
        method=method,
        with_reward=reward,
        with_length=length or cosine(0.0, 0.5),
        reward_ceiling=ceiling or cosine(0.97),
        accuracy_change=nothing,
        length_change=nothing,
    )


def critic(*along: Alignment, best: float | None = None) -> CriticPart:
    return CriticPart(
        name="c",
        source="c",
        layout=None,
        regressor=None,
        ranker=(),
        reacts=None,
        lambdas=(),
        alignment=along,
        best_lambda=best,
    )


def test_a_forecast_of_collapse_names_the_worst_lambda_and_the_way_out() -> None:
    (found,) = uphill(
        critic(at(0.9, cosine(-0.8)), at(0.95, cosine(-0.91), cosine(-0.99, 0.005)), at(1.0, cosine(0.99, 0.005)))
    )
    assert (found.code, found.severity) == ("collapse-forecast", "alarm")
    assert found.sentence == (
        "At λ = 0.95 the gradient points away from reward (cosine -0.910 [-0.930, -0.890]) and shortens responses "
        "(cosine with length -0.990 [-0.995, -0.985]). So it does at λ = 0.9. At λ = 1 it points towards reward."
    )
    assert found.advice == "Pretrain the value model, or use λ = 1 for the policy until then."


def test_lengthening_is_told() -> None:
    (found,) = uphill(critic(at(0.95, cosine(-0.5), cosine(0.4))))
    assert "lengthens responses" in found.sentence


def test_a_surrogate_is_a_warning_only() -> None:
    (found,) = uphill(critic(at(0.95, cosine(-0.5), method="surrogate")))
    assert found.severity == "warning"
    assert "has not seen the policy" in found.sentence


def test_several_lambdas_are_several_looks() -> None:
    """-0.1 [-0.19, -0.01] alone is below 0; as one of six looks it is not."""
    near = cosine(-0.1, 0.09)
    assert uphill(critic(at(0.95, near)))[0].code == "collapse-forecast"
    assert uphill(critic(*(at(x, near) for x in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0))))[0].code == "cannot-tell"


def test_truth_that_does_not_agree_with_itself_tells_nothing() -> None:
    (found,) = uphill(critic(at(0.95, cosine(0.2, 0.4), ceiling=cosine(-0.76, 0.9))))
    assert (found.code, found.severity) == ("cannot-tell", "unknown")
    assert "does not agree with itself" in found.sentence


def test_uphill_at_all_lambdas_is_good_and_at_some_is_open() -> None:
    assert uphill(critic(at(0.95, cosine(0.99)), at(1.0, cosine(0.98))))[0].code == "uphill"
    (found,) = uphill(critic(at(0.95, cosine(0.1, 0.5)), at(1.0, cosine(0.98))))
    assert found.code == "cannot-tell"
    assert "At λ = 1 it points towards reward." in found.advice


def test_the_best_lambda_is_a_note_with_the_settings() -> None:
    _, found = uphill(critic(at(0.95, cosine(0.99)), at(1.0, cosine(0.9)), best=0.95))
    assert (found.code, found.severity) == ("best-lambda", "note")
    assert "0.990 [0.970, 1.010]" in found.sentence
    assert {"gae.lambda_actor", "algorithm.lam"} <= {knob.setting for knob in found.knobs}


def test_every_method_has_its_own_verdict_and_none_has_none() -> None:
    assert uphill(critic()) == []
    both = uphill(critic(at(0.95, cosine(0.9)), at(0.95, cosine(-0.9), method="surrogate")))
    assert [one.code for one in both] == ["uphill", "collapse-forecast"]
