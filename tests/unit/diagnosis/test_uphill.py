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
    (result,) = uphill(
        critic(at(0.9, cosine(-0.8)), at(0.95, cosine(-0.91), cosine(-0.99, 0.005)), at(1.0, cosine(0.99, 0.005)))
    )
    assert (result.code, result.severity) == ("collapse-forecast", "alarm")
    assert result.sentence == (
        "At λ = 0.95 the gradient points away from reward (cosine -0.910 [-0.930, -0.890]) and shortens responses "
        "(cosine with length -0.990 [-0.995, -0.985]). So it does at λ = 0.9. At λ = 1 it points towards reward."
    )
    assert result.advice == "Pretrain the value model, or use λ = 1 for the policy until then."


def test_lengthening_is_told() -> None:
    (result,) = uphill(critic(at(0.95, cosine(-0.5), cosine(0.4))))
    assert "lengthens responses" in result.sentence


def test_a_surrogate_is_a_warning_only() -> None:
    (result,) = uphill(critic(at(0.95, cosine(-0.5), method="surrogate")))
    assert result.severity == "warning"
    assert "has not seen the policy" in result.sentence


def test_several_lambdas_are_several_looks() -> None:
    """-0.1 [-0.19, -0.01] alone is below 0; as one of six looks it is not."""
    near = cosine(-0.1, 0.09)
    assert uphill(critic(at(0.95, near)))[0].code == "collapse-forecast"
    assert uphill(critic(*(at(x, near) for x in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0))))[0].code == "cannot-tell"


def test_truth_that_does_not_agree_with_itself_tells_nothing() -> None:
    (result,) = uphill(critic(at(0.95, cosine(0.2, 0.4), ceiling=cosine(-0.76, 0.9))))
    assert (result.code, result.severity) == ("cannot-tell", "unknown")
    assert "does not agree with itself" in result.sentence


def test_uphill_at_all_lambdas_is_good_and_at_some_is_open() -> None:
    assert uphill(critic(at(0.95, cosine(0.99)), at(1.0, cosine(0.98))))[0].code == "uphill"
    (result,) = uphill(critic(at(0.95, cosine(0.1, 0.5)), at(1.0, cosine(0.98))))
    assert result.code == "cannot-tell"
    assert "At λ = 1 it points towards reward." in result.advice


def gaining(gae_lambda: float, gain: Estimate) -> Alignment:
    return at(gae_lambda, cosine(0.99)).model_copy(update={"against_monte_carlo": gain, "batch_size": 48})


def test_the_best_lambda_is_a_note_with_the_settings() -> None:
    along = critic(gaining(0.95, cosine(1.3)), gaining(1.0, cosine(1.1)), best=0.95)
    _, result = uphill(along.model_copy(update={"lambdas_as_good": (0.95, 1.0)}))
    assert (result.code, result.severity) == ("best-lambda", "note")
    assert "gains 1.300 [1.280, 1.320] of what Monte-Carlo" in result.sentence
    assert "λ = 1 cannot be told from it." in result.sentence
    assert {"gae.lambda_actor = 0.95", "algorithm.lam = 0.95"} <= {knob.setting for knob in result.knobs}


def test_a_half_blind_critic_goes_uphill_and_loses_the_signal() -> None:
    """The collapse that no cosine shows: numbers of a pretrained critic on `labels`, at 0.8, 0.95 and 1."""
    half_blind = critic(
        gaining(0.8, Estimate(value=0.11, low=0.04, high=0.18)),
        gaining(0.95, Estimate(value=0.24, low=0.15, high=0.34)),
        gaining(1.0, Estimate(value=0.93, low=0.72, high=1.16)),
        best=1.0,
    )
    direction, lost, _ = uphill(half_blind)
    assert (direction.code, lost.code, lost.severity) == ("uphill", "signal-lost", "warning")
    assert lost.title == "At λ = 0.8, 0.95 an update learns less than it would without this critic"
    assert "0.24 [0.15, 0.34] at λ = 0.95" in lost.sentence
    assert lost.advice == "Pretrain the value model further, or use λ = 1 for the policy."
    assert "gae.lambda_actor = 1" in {knob.setting for knob in lost.knobs}


def test_the_method_nearest_to_an_optimiser_is_judged_by_and_none_has_none() -> None:
    assert uphill(critic()) == []
    plain, scaled = at(0.95, cosine(-0.9)), at(0.95, cosine(0.9)).model_copy(update={"method": "preconditioned"})
    assert [one.code for one in uphill(critic(plain, scaled))] == ["uphill"]
    assert [one.code for one in uphill(critic(at(0.95, cosine(-0.9), method="surrogate"), scaled))] == ["uphill"]


def test_a_surrogate_does_not_tell_how_much_is_lost() -> None:
    lost = gaining(0.95, Estimate(value=0.3, low=0.2, high=0.4))
    assert [one.code for one in uphill(critic(lost))] == ["uphill", "signal-lost"]
    assert [one.code for one in uphill(critic(lost.model_copy(update={"method": "surrogate"})))] == ["uphill"]


def test_a_gain_below_nothing_goes_away() -> None:
    """Its cosine may not be known where the length of its gradient is not, and the sign of the gain is all the same."""
    unknown = {"with_reward": Estimate(value=None, why="noise")}
    away = gaining(0.9, Estimate(value=-0.3, low=-0.5, high=-0.1)).model_copy(update=unknown)
    (_, alone) = uphill(critic(away))
    assert alone.title == "At λ = 0.9 an update goes away from reward"
    _, both = uphill(critic(away, gaining(0.95, Estimate(value=0.3, low=0.2, high=0.4))))
    assert both.title == "At λ = 0.9, 0.95 an update learns less than it would without this critic"
    assert "At λ = 0.9 that is below 0: it goes away from reward." in both.sentence
