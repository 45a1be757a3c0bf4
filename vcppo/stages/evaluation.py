"""Stage 5, evaluation: fixed held-out problems, several responses each; stored ones are not sampled again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from vcppo.maths.statistics import avg_at_k, pass_at_k
from vcppo.models.distributed import world
from vcppo.rl.sampler import Sampler
from vcppo.seeding import seed_for
from vcppo.settings.evaluation import EvaluationSettings
from vcppo.settings.fixed import PROBLEMS_OF_A_SEED
from vcppo.stages.context import StageContext
from vcppo.store.samples import SampledProblem, SampleFolder, any_credit
from vcppo.tasks.base import Task
from vcppo.types import Verdict


@dataclass(frozen=True)
class Group:
    """Problems that are sampled together: always the same ones, so that a resumed evaluation repeats every bit.

    Rounding depends on how many responses are generated together; the draws depend on seed and number alone.
    """

    problems: range
    seed: int
    first: int  # number of the group's first response under its seed


def groups(problems: int, samples: int, settings: EvaluationSettings) -> Iterator[Group]:
    """Group all problems in their order, as many at a time as `responses_at_once` has room for, at least one."""
    size = settings.problems_at_once(samples)
    for start in range(0, problems, PROBLEMS_OF_A_SEED):
        end = min(start + PROBLEMS_OF_A_SEED, problems)
        for begin in range(start, end, size):
            seed = seed_for(settings.seed, "evaluation", start)
            yield Group(range(begin, min(begin + size, end)), seed, (begin - start) * samples)


def evaluate(
    make_sampler: Callable[[], Sampler],
    *,
    task: Task,
    settings: EvaluationSettings,
    samples: int,
    store: SampleFolder | None = None,
    on_problem: Callable[[SampledProblem, bool], None] = lambda problem, fresh: None,
) -> list[SampledProblem]:
    """Sample `samples` responses to every held-out problem; the draws depend on `evaluation.seed` alone.

    Args:
        make_sampler: called once, and not at all where every problem is stored.
        store: where responses are written as soon as they are there, and read from where they are already.
        on_problem: called with every problem, and whether its responses were sampled now.
    """
    prompts, here = task.held_out_prompts(settings.problems), world()
    sampled: dict[int, SampledProblem] = {}
    if store is not None:
        stored = (store.read(number, prompt, samples) for number, prompt in enumerate(prompts))
        sampled = here.from_main({problem.number: problem for problem in stored if problem is not None})
    for problem in sampled.values():
        on_problem(problem, False)
    sampler: Sampler | None = None
    for group in groups(len(prompts), samples, settings):
        if all(number in sampled for number in group.problems):
            continue
        sampler = sampler or make_sampler()
        rollouts = sampler.roll_out(
            [prompts[number] for number in group.problems for _ in range(samples)], seed=group.seed, first=group.first
        )
        for place, number in enumerate(group.problems):
            if number not in sampled:
                start = place * samples
                responses = rollouts[start : start + samples]
                sampled[number] = SampledProblem.of(number, group.seed, group.first + start, responses)
                if store is not None and here.is_main:
                    store.write(sampled[number])
                on_problem(sampled[number], True)
    return [sampled[number] for number in range(len(prompts))]


@dataclass(frozen=True)
class ProblemResults:
    """Counts by problem, in the order of the task's held-out problems."""

    problems: list[str]
    samples: int
    correct: list[int]
    unreadable: list[int]
    length_tokens: list[float]  # mean over the problem's responses
    credit: list[float] | None = None  # the same, where the task gives any

    @classmethod
    def of(cls, sampled: list[SampledProblem]) -> "ProblemResults":
        """Count the verdicts of the responses."""
        samples = len(sampled[0].samples)
        return cls(
            problems=[problem.problem for problem in sampled],
            samples=samples,
            correct=[problem.count(Verdict.CORRECT) for problem in sampled],
            unreadable=[problem.count(Verdict.UNREADABLE) for problem in sampled],
            length_tokens=[sum(sample.tokens for sample in problem.samples) / samples for problem in sampled],
            credit=[sum(problem.credits) / samples for problem in sampled] if any_credit(sampled) else None,
        )

    def metrics(self, task: str) -> dict[str, float]:
        """avg@k, pass@k, mean length and mean credit under their logged names."""
        correct, k = np.array(self.correct), self.samples
        return {
            f"eval/{task}/avg_at_{k}": float(np.mean(avg_at_k(correct, k))),
            f"eval/{task}/pass_at_{k}": float(np.mean(pass_at_k(correct, k, k))),
            f"eval/{task}/length_tokens": float(np.mean(self.length_tokens)),
            **({} if self.credit is None else {f"eval/{task}/credit": float(np.mean(self.credit))}),
        }

    def table(self) -> dict[str, list[str] | list[int] | list[float]]:
        """Columns of the table `problems`."""
        return {
            "problem": self.problems,
            "samples": [self.samples] * len(self.problems),
            "correct": self.correct,
            "unreadable": self.unreadable,
            "length_tokens": self.length_tokens,
            **({} if self.credit is None else {"credit": self.credit}),
        }


def evaluate_policy(policy: PreTrainedModel, context: StageContext, samples: int) -> ProblemResults:
    """`evaluate` with the settings of a run, during training: only counts are stored."""
    return _of_run(lambda: policy, context, samples, None)


def evaluation(context: StageContext) -> dict[str, float]:
    """Evaluate the policy that RL ended with; every response stays in `samples/`."""
    results = _of_run(
        lambda: context.load_policy(context.earlier["rl"].path / "policy"),
        context,
        context.settings.evaluation.samples,
        SampleFolder(context.folder.path / "samples", notice=lambda line: None),
    )
    metrics = results.metrics(context.task.name)
    journal = context.folder.journal
    journal.truncate(0)
    steps = int((context.earlier["rl"].result or {}).get("steps", context.settings.steps))  # fewer after a warning
    journal.metrics(steps, metrics)
    journal.table("problems", steps, results.table())
    return metrics


def _of_run(
    policy: Callable[[], PreTrainedModel], context: StageContext, samples: int, store: SampleFolder | None
) -> ProblemResults:
    sampled = evaluate(
        lambda: context.evaluation_sampler(policy()),
        task=context.task,
        settings=context.settings.evaluation,
        samples=samples,
        store=store,
    )
    return ProblemResults.of(sampled)
