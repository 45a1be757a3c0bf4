"""A report and responses as a diagnosis makes them, without a diagnosis: for tests of the page, and to look at it.

`python tests/diagnosis_report_example.py FOLDER` writes it.
"""

import sys
from pathlib import Path
from typing import Literal

import numpy as np

from vcppo.diagnosis.report.viewer import ViewedResponse, ViewerData
from vcppo.diagnosis.report.writing import write_report
from vcppo.diagnosis.schema import (
    Alignment,
    Calibration,
    CriticPart,
    Curve,
    DataPart,
    Estimate,
    Knob,
    LambdaShare,
    Provenance,
    RankAt,
    Reacts,
    Regressor,
    Report,
    Section,
    Signal,
    Timing,
    Verdict,
)

LAMBDAS = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)
PARTS: tuple[Literal["first half", "middle", "last tenth", "last token"], ...] = (
    "first half",
    "middle",
    "last tenth",
    "last token",
)
CRITICS = ("reward-model", "pretrained-50")
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.hacked = 1'>",
    "{{ 7 * 7 }}${7*7}",
    "\x00\x07\x1b[31m",
    "\u202edesrever\u2066\u2069\u200f",
    "line\u2028separator, paragraph\u2029separator",
    "\ud800 lone \udfff",
    "\ufeff\u200b\u00ad",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "é" * 3 + "\u0336" * 40,
    "",
    "\r\n\t",
    "W" * 200_000,
)


def estimate(value: float, half: float = 0.02) -> Estimate:
    """An estimate with an interval about it, a little lopsided."""
    return Estimate(value=round(value, 6), low=round(value - half, 6), high=round(value + 1.2 * half, 6))


def knobs() -> tuple[Knob, ...]:
    """Pretraining of the value model, in each trainer."""
    return (
        Knob(
            trainer="vcppo",
            setting="--set pretrain.steps=converge \\\n--set gae.lambda_actor=0.95 \\\n--set gae.lambda_critic=1.0",
        ),
        Knob(
            trainer="verl",
            setting="trainer.critic_warmup=50\nalgorithm.lam=1.0",
            note="One λ for actor and critic; the vcppo plugin adds +algorithm.vcppo.lambda_actor=0.95.",
        ),
        Knob(trainer="OpenRLHF", setting="--freezing_actor_steps 50 --lambd 1.0"),
        Knob(trainer="NeMo-RL", setting=None, note="Start from a critic that was pretrained elsewhere."),
        Knob(trainer="TRL", setting="PPOConfig(lam=1.0)", note="No warm-up of the value model."),
    )  # fmt: skip


def curve(xs: np.ndarray, bias: np.ndarray, returns: np.ndarray, ev: np.ndarray, wide: float) -> Curve:
    """A curve of len(xs) points; what has fewer than 60 responses behind it has wider intervals."""
    responses = np.linspace(1024, 40, len(xs)).astype(int)
    half = wide * np.sqrt(1024 / responses)
    return Curve(
        x=tuple(xs.tolist()),
        n=tuple((responses * 12).tolist()),
        responses=tuple(responses.tolist()),
        value_mean=tuple((returns + bias).tolist()),
        return_mean=tuple(returns.tolist()),
        bias=tuple(estimate(float(b), float(h)) for b, h in zip(bias, half, strict=True)),
        explained_variance=tuple(
            Estimate(value=None, why="all returns are equal here")
            if i == 0 and wide > 0.05
            else estimate(float(e), float(h))
            for i, (e, h) in enumerate(zip(ev, 1.5 * half, strict=True))
        ),
    )


def critic(name: str, *, bad: bool) -> CriticPart:
    """All numbers of a critic: 2.3 too low and knowing the position only, or healthy."""
    start, end = np.linspace(0, 480, 17), np.linspace(0, 480, 17)
    fraction, length = np.linspace(0.05, 0.95, 10), np.array([40, 90, 140, 190, 260, 340, 480.0])
    offset = -2.3 if bad else 0.02
    wide = 0.06 if bad else 0.03

    def made(xs: np.ndarray, slope: float) -> Curve:
        unit = (xs - xs.min()) / (xs.max() - xs.min())
        bias = offset + (1.1 * (unit - 0.5) if bad else 0.05 * np.sin(6 * unit))
        ev = -3.1 + 2.4 * unit if bad else 0.25 + 0.55 * unit
        return curve(xs, bias, -0.35 - slope * unit, ev, wide)

    predicted = np.linspace(-3.4, -1.6, 8) if bad else np.linspace(-0.95, 0.9, 8)
    cosines = (0.53, -0.82, -0.92, -0.91, -0.76, 0.99) if bad else (0.92, 0.973, 0.995, 0.995, 0.994, 0.992)
    lengths = (0.44, -0.92, -0.985, -0.985, -0.95, 0.89) if bad else (0.31, 0.36, 0.4, 0.41, 0.42, 0.44)
    return CriticPart(
        name=name,
        source=f"runs/critics/{name}",
        layout="verl: score, 8 FSDP shards",
        notes=("another tokenizer than the policy's: values are read at the 92 % of boundaries both share",) * bad,
        not_finite=3 if bad else 0,
        regressor=Regressor(
            bias=estimate(offset, wide),
            slope=estimate(0.04 if bad else 0.97, 0.03),
            intercept=estimate(-0.41 if bad else -0.01, 0.05),
            rmse=estimate(2.51 if bad else 0.42, 0.03),
            share_offset=estimate(0.84 if bad else 0.01, 0.01),
            share_slope=estimate(0.06 if bad else 0.02, 0.01),
            share_rest=estimate(0.10 if bad else 0.97, 0.01),
            explained_variance=estimate(-0.72 if bad else 0.61, 0.05),
            explained_variance_ceiling=estimate(0.74, 0.02),
            value_std=0.48,
            return_std=0.93,
            from_start=made(start, 0.3),
            from_end=made(end, -0.3),
            by_fraction=made(fraction, 0.05),
            by_length=made(length, 0.4),
            value_low=-3.8 if bad else -1.1,
            value_high=-1.2 if bad else 1.1,
            sections=tuple(
                Section(
                    name=part,
                    n=40_000,
                    bias=estimate(offset, wide),
                    slope=estimate(0.04 if bad else 0.97, 0.05),
                    explained_variance=estimate(-0.7 if bad else 0.5, 0.06),
                    correlation=estimate(0.05 if bad else 0.7, 0.03),
                    spread=0.4,
                )
                for part in PARTS
            ),
            calibration=Calibration(
                predicted_mean=tuple(predicted.tolist()),
                return_mean=tuple(estimate(-0.4 + 0.05 * x if bad else 0.97 * x, 0.05) for x in predicted.tolist()),
                n=(812, 4031, 9210, 14022, 13310, 8077, 3900, 640),
            ),
        ),
        ranker=tuple(
            RankAt(
                fraction=f,
                within_prompts=estimate((0.5 + 0.01 * i) if bad else (0.55 + 0.1 * i), 0.035),
                across_prompts=estimate((0.53 + 0.01 * i) if bad else (0.66 + 0.07 * i), 0.03),
            )
            for i, f in enumerate((0.1, 0.25, 0.5, 0.75))
        ),
        reacts=Reacts(
            position=estimate(0.83 if bad else 0.07, 0.02),
            prompt=estimate(0.11 if bad else 0.31, 0.02),
            neither=estimate(0.06 if bad else 0.62, 0.02),
        ),
        lambdas=tuple(
            LambdaShare(
                gae_lambda=x,
                real_reward=estimate([0.004, 0.008, 0.04, 0.09, 0.36, 1.0][i], 0.004),
                opinion=estimate([0.99, 0.98, 0.93, 0.86, 0.52, 0.21][i] * (1.0 if bad else 0.55), 0.015),
            )
            for i, x in enumerate(LAMBDAS)
        ),
        alignment=tuple(
            Alignment(
                gae_lambda=x,
                method="gradient",
                with_reward=estimate(cosines[i], 0.025 if abs(cosines[i]) < 0.97 else 0.004),
                with_length=estimate(lengths[i], 0.02),
                reward_ceiling=Estimate(value=0.993, low=0.988, high=0.997),
                accuracy_change=estimate(0.012 * cosines[i], 0.001),
                length_change=estimate(7.5 * lengths[i], 0.4),
                noise=estimate(2.4 + 0.3 * i, 0.2),
                batch_size=512,
                batch_accuracy_change=estimate(0.011 * cosines[i], 0.002),
                batch_length_change=estimate(7.1 * lengths[i], 0.6),
                against_monte_carlo=estimate(cosines[i], 0.05),
                baseline="prompt",
                backward_passes=256,
            )
            for i, x in enumerate(LAMBDAS)
        ),
        best_lambda=1.0 if bad else 0.95,
        signal=Signal(correlation=estimate(0.02 if bad else 0.66, 0.03), slope=estimate(0.05 if bad else 0.98, 0.04)),
        timing=Timing(
            before_split=estimate(0.0, 0.001),
            at_split=estimate(0.0, 0.001),
            after_split=estimate(0.9, 0.08),
            first_token=estimate(0.01, 0.004),
            roughness=estimate(0.03, 0.004),
            pairs=412,
            rounding=0.002,
        ),
    )  # fmt: skip


def report() -> Report:
    """Two critics on the same responses: a reward model, and one that was pretrained for 50 updates."""
    return Report(
        verdicts=(
            Verdict(
                code="healthy",
                severity="good",
                critic="pretrained-50",
                title="This critic is ready for PPO at λ = 0.95",
                sentence="Bias 0.02 [−0.01, 0.06], explained variance 0.61 of 0.74 that are possible, and its gradient "
                "at λ = 0.95 agrees with the truth: cosine 0.995 [0.991, 1.000].",
            ),
            Verdict(
                code="collapse-forecast",
                severity="alarm",
                critic="reward-model",
                title="At λ = 0.95 PPO will shorten responses to nothing",
                sentence="Values are 2.3 too low everywhere and know the position only: at λ = 0.95 the gradient "
                "points away from reward (cosine −0.91 [−0.94, −0.88]) and shortens responses (cosine with length "
                "−0.98 [−1.00, −0.96]).",
                advice="Pretrain the value model, or use λ_actor = 1 until then.",
                knobs=knobs(),
            ),
            Verdict(
                code="position-only",
                severity="warning",
                critic="reward-model",
                title="The critic knows where it is, not what it reads",
                sentence="83 % [81, 85] of its variance is position alone; it ranks responses to one prompt no better "
                "than chance (AUC at half 0.52 [0.49, 0.56]).",
                advice="Pretrain beyond the first phase: until explained variance rises, not only the loss settles.",
                knobs=(Knob(trainer="vcppo", setting="--set pretrain.steps=converge --set pretrain.patience=100"),),
            ),
            Verdict(
                code="cannot-tell",
                severity="unknown",
                critic=None,
                title="Whether long responses are better cannot be told",
                sentence="Score and length correlate by 0.03 [−0.05, 0.11] over 1,024 responses.",
                more_responses=3000,
            ),
            Verdict(
                code="truncation",
                severity="note",
                critic=None,
                title="4 % of the responses were cut at the length limit",
                sentence="41 of 1,024 responses ended at 480 tokens; they are scored as wrong.",
            ),
        ),
        data=DataPart(
            source="rollouts/step-*.jsonl",
            form="verl",
            responses=1024,
            problems=128,
            tokens=191_233,
            length_mean=186.75,
            length_median=171.0,
            length_min=11,
            length_max=480,
            truncated=estimate(0.04, 0.012),
            score_mean=estimate(-0.36, 0.05),
            score_low=-1.0,
            score_high=1.0,
            correct=estimate(0.32, 0.025),
            score_length_correlation=estimate(0.03, 0.08),
            score_between_prompts=estimate(0.41, 0.06),
            return_low=-1.0,
            return_high=1.0,
            rarer_prompts=97,
            notes=("2 lines had no score and were left out (lines 17 and 803)",),
        ),
        critics=(critic("reward-model", bad=True), critic("pretrained-50", bad=False)),
        provenance=Provenance(
            vcppo="0.2.0",
            commit="568bc5f",
            command="vcppo diagnose --answers 'rollouts/step-*.jsonl' --critic runs/critics/reward-model "
            "--critic runs/critics/pretrained-50 --policy runs/policy --out diagnosis",
            made_at="2026-11-26T21:40:00Z",
            seconds=412.3,
            seed=0,
            versions={"torch": "2.11.0", "transformers": "5.9.1", "python": "3.11.9"},
        ),
    )  # fmt: skip


WORDS = (
    "Let us write the number as x = 3 7 + 2 y so that both sides are divisible by 1 . Wait let me check again: ( a - b "
    "> 0 Hence we get a contradiction therefore only two cases remain The first case gives modulo prime Thus"
)
TOKENS = (
    *(f" {word}" for word in dict.fromkeys(WORDS.split())),
    ",",
    "\n",
    "\n\n",
    "1",
    "\\frac",
    "{",
    "}",
    "^",
    ")²",
    "$",
)


def viewed(
    rng: np.random.Generator, place: int, length: int, *, step: int | None, entropy: bool = True, critics: int = 2
) -> ViewedResponse:
    """A response of so many tokens: critic 0 low and by position only, critic 1 near the truth."""
    right = rng.random() < 0.35
    weights = 1 / np.arange(1, len(TOKENS) + 1)
    tokens = [TOKENS[i] for i in rng.choice(len(TOKENS), length, p=weights / weights.sum())]
    for at in rng.integers(0, length, length // 6):  # what a real vocabulary has of rare words
        tokens[at] = f" w{int(rng.zipf(1.3)) % 5000}"
    tokens[-3:] = [" \\boxed{", f"{place % 97}", "}"]
    score = 1.0 if right else -1.0
    unit = np.arange(length) / max(1, length - 1)
    walk = np.cumsum(rng.normal(0, 0.25 / np.sqrt(length), length))
    healthy = np.clip(-0.3 + (score + 0.3) * unit**1.5 + walk + rng.normal(0, 0.04, length), -1.1, 1.1)
    position = -2.9 + 1.1 * unit + rng.normal(0, 0.06, length)
    position[rng.integers(0, length)] -= 0.9
    values = [position, healthy, healthy + rng.normal(0, 0.2, length)][:critics]
    surprise = rng.exponential(0.35, length)
    return ViewedResponse(
        problem=f"problem-{place // 4:03d}",
        prompt=f"Problem {place // 4}. Find all integers x with 3x + 2y = {place // 4 + 11} where y is a prime.\n"
        "Answer in \\boxed{}.",
        tokens=tuple(tokens),
        score=score,
        values=tuple(column.astype(np.float32) for column in values),
        returns=np.full(length, score, dtype=np.float32),
        logprobs=(-surprise).astype(np.float32),
        entropy=rng.gamma(2.0, 0.3, length).astype(np.float32) if entropy else None,
        truncated=length >= 480,
        step=step,
        line=place + 1,
    )  # fmt: skip


def viewer(count: int = 48, length: int | None = None, *, steps: tuple[int, ...] = (), seed: int = 0) -> ViewerData:
    """Responses for the viewer; one of them has a NaN in its values."""
    rng = np.random.default_rng(seed)
    responses = [
        viewed(rng, i, length or int(rng.integers(30, 480)), step=steps[i % len(steps)] if steps else None)
        for i in range(count)
    ]
    np.asarray(responses[-1].values[0])[5] = np.nan
    return ViewerData(CRITICS, tuple(responses), LAMBDAS, f"{count} of 1,024 responses, drawn at random.")


def hostile() -> ViewerData:
    """One response whose every token, prompt and problem wants to run or to hide."""
    zeros = np.zeros(len(HOSTILE))
    nasty = ViewedResponse("".join(HOSTILE[:8]), "".join(HOSTILE), HOSTILE, 1.0, (zeros, zeros), zeros + 1, line=1)
    return ViewerData(
        ("</script><script>window.hacked = 1</script>", "\u202eb"), (nasty,), note="<b>" + "".join(HOSTILE[:7])
    )


if __name__ == "__main__":
    write_report(report(), viewer(steps=(0, 10, 20)), Path(sys.argv[1]))
