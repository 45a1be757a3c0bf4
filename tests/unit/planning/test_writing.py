"""An evaluation writes in its own way, so many rows at a time and from its own nucleus: memory and time follow it."""

import pytest
from tiny import tiny

from vcppo.planning.lengths import lengths_of
from vcppo.planning.memory_estimate import Memory, generate, torch_generator
from vcppo.planning.plan import Gpus, Plan, make_plan
from vcppo.planning.speeds import Speed
from vcppo.planning.time_estimate import networks_of, stage_work
from vcppo.planning.writing import Writing, evaluation_writing, held_out_problems, training_writing
from vcppo.settings.run import RunSettings
from vcppo.stages.evaluation import groups

EVALUATED = ("evaluation.samples=2", "evaluation.samples_during=3", "evaluation.top_p=0.7")
SPEED = Speed(generate_s=4.0, step_s=60.0, nucleus_s=0.5, read_s=0.0, train_s=0.0, update_s=0.0)


def memory_of(settings: RunSettings, stage: str, name: str) -> Memory:
    plan: Plan = make_plan(settings, Gpus(0, 0.0))
    return next(phase.memory for phase in plan.phases if (phase.stage, phase.name) == (stage, name))


@pytest.mark.parametrize("at_once", [1, 7, 40, 5000])
@pytest.mark.parametrize("samples", [1, 3, 8])
def test_as_many_rows_are_planned_as_the_stage_writes(at_once: int, samples: int) -> None:
    settings = tiny(f"evaluation.responses_at_once={at_once}")
    made = groups(held_out_problems(settings), samples, settings.evaluation)
    planned = evaluation_writing(settings, samples)
    assert planned.rows == max(len(group.problems) * samples for group in made)


def test_a_nucleus_is_that_of_the_evaluation_and_none_where_it_is_greedy() -> None:
    settings = tiny(*EVALUATED)
    assert (evaluation_writing(settings, 2).nucleus, training_writing("rl", settings).nucleus) == (True, False)
    settings = tiny("rollout.top_p=0.9")
    assert (evaluation_writing(settings, 2).nucleus, training_writing("rl", settings).nucleus) == (False, True)
    settings = tiny(*EVALUATED)
    greedy = settings.evaluation.model_copy(update={"temperature": 0.0})  # beside a top_p that its task says
    assert not evaluation_writing(settings.model_copy(update={"evaluation": greedy}), 1).nucleus


def test_memory_is_that_of_the_rows_and_the_nucleus_of_each() -> None:
    settings = tiny(*EVALUATED, "evaluation.responses_at_once=12", "evaluation.every=1")
    policy, _ = networks_of(settings)
    lengths = lengths_of(settings)

    def writes(rows: int, *, nucleus: bool) -> Memory:
        return generate(policy, rows, lengths.longest_prompt, lengths.limit, nucleus=nucleus)

    alone, during = memory_of(settings, "evaluation", "generate"), memory_of(settings, "rl", "evaluate")
    assert alone.logits == during.logits == writes(12, nucleus=True).logits  # 6 problems by 2, 4 by 3
    assert alone.cache == writes(12, nucleus=True).cache
    rollouts = memory_of(settings, "rl", "generate")
    assert rollouts.logits == writes(settings.responses_per_iteration, nucleus=False).logits
    assert during.generator == rollouts.generator + torch_generator(policy)  # that of the rollouts waits beside it
    none = make_plan(tiny("evaluation.every=0"), Gpus(0, 0.0)).phases
    assert ("rl", "evaluate") not in {(phase.stage, phase.name) for phase in none}


def test_time_is_that_of_the_rows_and_the_nucleus_of_each() -> None:
    settings = tiny(*EVALUATED, "evaluation.responses_at_once=12", "evaluation.every=1")
    work = stage_work("evaluation", settings, lengths_of(settings))
    assert work.seconds(SPEED, SPEED) == pytest.approx((4.0 + 60.0 / 12 + 0.5) * work.generated)
    rl = stage_work("rl", settings, lengths_of(settings))
    rollouts = settings.steps * settings.responses_per_iteration * lengths_of(settings).written
    trained = (4.0 + 60.0 / settings.responses_per_iteration) * rollouts
    assert rl.seconds(SPEED, SPEED) == pytest.approx(trained + (4.0 + 60.0 / 12 + 0.5) * (rl.generated - rollouts))
    assert SPEED.writing_s(Writing(10**6, nucleus=False)) == 4.0 + 60.0 / 512  # the generator's rows at a time


def test_hours_on_gpus_follow_the_rows_of_the_evaluation() -> None:
    few, many = (
        next(
            time.generate_h
            for time in make_plan(tiny(f"evaluation.responses_at_once={count}"), Gpus.of(1, 80)).times
            if time.stage == "evaluation"
        )
        for count in (1, 256)
    )
    assert few > 2 * many
