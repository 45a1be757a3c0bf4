"""Stage 5, evaluation: fixed held-out problems, several answers each, avg@k and the unbiased pass@k."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo import models
from vcppo.config import EvaluationSettings, RewardSettings, RunSettings
from vcppo.engines import Engine, make_engine
from vcppo.engines.base import Sampling
from vcppo.maths.statistics import avg_at_k, bootstrap_interval, pass_at_k
from vcppo.provenance import provenance
from vcppo.seeding import seed_for
from vcppo.stages.context import StageContext
from vcppo.stages.sampling import roll_out
from vcppo.tasks import Task, make_task
from vcppo.types import Verdict

PROMPTS_AT_ONCE = 32


@dataclass(frozen=True)
class ProblemResults:
    """Counts by problem, in the order of the task's held-out problems."""

    problems: list[str]
    samples: int
    correct: list[int]
    unreadable: list[int]
    length_tokens: list[float]  # mean over the problem's answers

    def metrics(self, task: str) -> dict[str, float]:
        """avg@k, pass@k and mean length under their logged names."""
        correct, k = np.array(self.correct), self.samples
        return {
            f"eval/{task}/avg_at_{k}": float(np.mean(avg_at_k(correct, k))),
            f"eval/{task}/pass_at_{k}": float(np.mean(pass_at_k(correct, k, k))),
            f"eval/{task}/length_tokens": float(np.mean(self.length_tokens)),
        }

    def table(self) -> dict[str, list[str] | list[int] | list[float]]:
        """Columns of the table `problems`."""
        return {
            "problem": self.problems,
            "samples": [self.samples] * len(self.problems),
            "correct": self.correct,
            "unreadable": self.unreadable,
            "length_tokens": self.length_tokens,
        }


def evaluate(
    engine: Engine,
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerFast,
    settings: EvaluationSettings,
    samples: int,
    max_tokens: int | None,
) -> ProblemResults:
    """Answer every held-out problem `samples` times; the draws depend on `evaluation.seed` alone."""
    prompts = task.held_out_prompts()
    rollouts = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        rollouts += roll_out(
            [prompt for prompt in prompts[start : start + PROMPTS_AT_ONCE] for _ in range(samples)],
            task=task,
            tokenizer=tokenizer,
            engine=engine,
            sampling=Sampling(settings.temperature, settings.top_p, max_tokens or task.max_tokens),
            reward=RewardSettings(),
            seed=seed_for(settings.seed, "evaluation", start),
        )
    of_problem = [rollouts[i * samples : (i + 1) * samples] for i in range(len(prompts))]
    return ProblemResults(
        problems=[prompt.name for prompt in prompts],
        samples=samples,
        correct=[sum(r.verdict is Verdict.CORRECT for r in group) for group in of_problem],
        unreadable=[sum(r.verdict is Verdict.UNREADABLE for r in group) for group in of_problem],
        length_tokens=[sum(len(r.generation.tokens) for r in group) / samples for group in of_problem],
    )


def evaluate_policy(policy: PreTrainedModel, context: StageContext, samples: int) -> ProblemResults:
    """`evaluate` with the settings of a run."""
    return evaluate(
        context.engine(policy),
        task=context.task,
        tokenizer=context.tokenizer,
        settings=context.settings.evaluation,
        samples=samples,
        max_tokens=context.settings.rollout.max_tokens,
    )


def evaluation(context: StageContext) -> dict[str, float]:
    """Evaluate the policy that RL ended with."""
    policy = context.load_policy(context.earlier["rl"].path / "policy")
    results = evaluate_policy(policy, context, context.settings.evaluation.samples)
    metrics = results.metrics(context.task.name)
    journal = context.folder.journal
    journal.truncate(0)
    journal.metrics(context.settings.steps, metrics)
    journal.table("problems", context.settings.steps, results.table())
    return metrics


@dataclass(frozen=True)
class CheckpointEvaluation:
    """A checkpoint's results with the settings that repeat them."""

    checkpoint: Path
    task: str
    settings: EvaluationSettings
    results: ProblemResults

    def lines(self) -> list[str]:
        """For people: each number with its 95 % bootstrap interval over problems."""
        k, correct = self.results.samples, np.array(self.results.correct)
        rows = [(f"avg@{k}", avg_at_k(correct, k)), (f"pass@{k}", pass_at_k(correct, k, k))]
        rows.append(("length (tokens)", np.array(self.results.length_tokens)))
        unreadable = sum(self.results.unreadable) / (k * len(correct))
        lines = [f"{self.checkpoint} on {self.task}: {len(correct)} problems, {k} answers each"]
        for name, by_problem in rows:
            interval = bootstrap_interval(by_problem, np.mean, rng=np.random.default_rng(0))
            lines.append(f"{name:16} {np.mean(by_problem):8.3f}   [{interval.low:.3f}, {interval.high:.3f}]")
        return [*lines, f"{'unreadable':16} {unreadable:8.3f}"]

    def as_json(self) -> dict[str, Any]:
        """Everything needed to repeat it, and the counts by problem."""
        return {
            "checkpoint": str(self.checkpoint),
            "task": self.task,
            "evaluation": self.settings.model_dump(),
            "provenance": provenance(),
            **asdict(self.results),
        }


def evaluate_checkpoint(checkpoint: Path, settings: RunSettings, samples: int) -> CheckpointEvaluation:
    """Evaluate any policy in transformers format on the task of the settings.

    Raises:
        CheckpointError: no such policy or tokenizer, or the engine cannot decode it.
    """
    task = make_task(settings.task)
    tokenizer = models.load_tokenizer(checkpoint)
    results = evaluate(
        make_engine(settings.engine, models.load_policy(checkpoint)),
        task=task,
        tokenizer=tokenizer,
        settings=settings.evaluation,
        samples=samples,
        max_tokens=settings.rollout.max_tokens,
    )
    return CheckpointEvaluation(checkpoint, task.name, settings.evaluation, results)
