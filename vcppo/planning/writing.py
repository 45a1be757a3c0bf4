"""Responses that a stage writes together: how many at a time, and from a nucleus or not. Memory and time count so."""

from dataclasses import dataclass

from vcppo.settings.fixed import PAIRED_PROMPTS_AT_ONCE, RESPONSES_AT_ONCE
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsTaskSettings
from vcppo.tasks.problems import evaluation_size


@dataclass(frozen=True)
class Writing:
    """Responses that are written together, by all processes."""

    rows: int
    nucleus: bool  # drawn from a share of the probabilities, `top_p`, which has to be found for every token


def training_writing(stage: str, settings: RunSettings) -> Writing:
    """Return how a stage writes responses that are trained on."""
    at_once = {
        "reward-model": PAIRED_PROMPTS_AT_ONCE * settings.reward_model.responses_per_prompt,
        "value-pretraining": settings.pretrain.batch,
        "rl": settings.responses_per_iteration,
    }
    in_all = {
        "reward-model": settings.reward_model.responses,
        "answers": sum(settings.fixed_responses),
        "forecast-answers": settings.record.forecast_responses,
    }
    rows = at_once.get(stage, RESPONSES_AT_ONCE)
    return Writing(max(min(rows, in_all.get(stage, rows)), 1), settings.rollout.top_p < 1)


def evaluation_writing(settings: RunSettings, samples: int) -> Writing:
    """Return how an evaluation with so many samples of a problem writes, by settings of its own."""
    chosen = settings.evaluation
    problems = min(chosen.problems_at_once(samples), held_out_problems(settings))
    draws = chosen.temperature > 0  # else it takes the likeliest token
    return Writing(max(problems, 1) * samples, chosen.top_p < 1 and draws)


def held_out_problems(settings: RunSettings) -> int:
    """Return the number of problems of an evaluation."""
    task = settings.task
    if isinstance(task, MathsTaskSettings):
        return evaluation_size(task.maths)
    return task.problems(settings.evaluation.problems)
