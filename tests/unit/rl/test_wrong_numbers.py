"""Exact values of `digits` for a policy that often gives a line a wrong number, and then mostly stops too early."""

from collections.abc import Iterator

import pytest
import torch
from tiny import new_policy, plainly, tiny
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.engines import make_engine
from vcppo.engines.base import Sampling
from vcppo.models import forward
from vcppo.rl import ways
from vcppo.rl.continuations import mean_scores
from vcppo.rl.exact_values import Response, exact_values, expected_score
from vcppo.rl.rewards import Shaping, verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Prompt, Rollout, Verdict

SHAPE = ("model.hidden_size=32", "model.layers=2")
SETTINGS = tiny(*SHAPE)
REWARD = SETTINGS.reward
WRONG_NUMBER, STOPS = 0.2, 0.6


@pytest.fixture(scope="module")
def task() -> DigitsTask:
    task = make_task(SETTINGS.task)
    assert isinstance(task, DigitsTask)
    return task


@pytest.fixture(scope="module")
def prompts(task: DigitsTask) -> list[Prompt]:
    return task.held_out_prompts()[:2]


def imitated(task: DigitsTask, prompts: list[Prompt], rng: torch.Generator) -> Iterator[str]:
    """Right lines, each with a wrong number by chance; after one the response ends at the next line, by chance."""
    for prompt in prompts:
        words = list(task.decision_path(prompt, []).tokens)
        for place in range(0, 9, 3):
            wrong, stops = (torch.rand(2, generator=rng) < torch.tensor([WRONG_NUMBER, STOPS])).tolist()
            if wrong:
                words[place] = f"#{int(torch.randint(4, 8, (), generator=rng))}"
            if wrong and stops:
                words[place + 3 :] = ["=", "?", "<eos>"]
                break
        yield f"{prompt.text} {' '.join(words)}"


@pytest.fixture(scope="module")
def policy(task: DigitsTask, prompts: list[Prompt]) -> PreTrainedModel:
    policy, rng = new_policy(*SHAPE), torch.Generator().manual_seed(0)
    tokenizer = task.tokenizer()
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.003)
    for _ in range(150):
        read = tokenizer(list(imitated(task, prompts * 16, rng)), padding=True, return_tensors="pt")
        labels = read["input_ids"].masked_fill(read["attention_mask"] == 0, -100)
        loss = policy(input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return plainly(policy.eval())


@pytest.fixture(scope="module")
def sampler(task: DigitsTask, policy: PreTrainedModel) -> Sampler:
    return Sampler(task, task.tokenizer(), make_engine(SETTINGS.engine, policy), Sampling(1.0, 1.0, task.max_tokens))


@pytest.fixture(scope="module")
def rollouts(sampler: Sampler, prompts: list[Prompt]) -> list[Rollout]:
    """Of those that are right: the first whose first line has a wrong number, and the first with right numbers."""
    drawn = [rollout for rollout in sampler.roll_out(prompts * 20, seed=0) if rollout.verdict is Verdict.CORRECT]
    wrong = next(rollout for rollout in drawn if not rollout.text.startswith("#1"))
    return [wrong, next(rollout for rollout in drawn if rollout.text.split()[:9:3] == ["#1", "#2", "#3"])]


def chances(policy: PreTrainedModel, sampler: Sampler, rollouts: list[Rollout]) -> Tensor:
    responses = [Response.of(rollout) for rollout in rollouts]
    values = exact_values(policy, responses, sampler=sampler, reward=REWARD, max_tokens=400).values()
    return (values - REWARD.wrong) / (REWARD.correct - REWARD.wrong)


def test_values_are_what_continuations_come_to_before_and_after_a_wrong_number(
    policy: PreTrainedModel, sampler: Sampler, rollouts: list[Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 0.04: half of success goes through wrong numbers, and what each keeps is taken to be the same for all.

    Four standard errors of 4,096 continuations are 0.03.
    """
    places = [(0, 0), (0, 1), (0, 4), (1, 0), (1, 4), (1, 8)]
    shaping = Shaping(REWARD, sampler.sampling.max_tokens)
    means = mean_scores(rollouts, places, 4096, shaping, sampler=sampler, seed=1)
    sampled = [(mean - REWARD.wrong) / (REWARD.correct - REWARD.wrong) for mean in means.scores]
    computed = chances(policy, sampler, rollouts)
    assert [float(computed[place]) for place in places] == pytest.approx(sampled, abs=0.04)
    assert sampled[1] < 0.7 * sampled[0]  # the wrong number costs
    monkeypatch.setattr(ways, "MOST_DETOURS", 0)  # as though it did not
    costless = chances(policy, sampler, rollouts)
    for row in (0, 1):
        assert float(costless[row, 0]) > sampled[0] + 0.15


def test_the_exact_gradient_is_the_mean_of_sampled_ones(
    policy: PreTrainedModel, sampler: Sampler, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along itself, the one that takes wrong numbers to cost nothing, and what is between: 20 batches of 200 responses.

    The baseline is the mean score of 200 responses, their own included.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]

    def gradient() -> Tensor:
        score = expected_score(policy, prompts, sampler=sampler, reward=REWARD, max_tokens=400)
        return flat(torch.autograd.grad(score, parameters))

    exact = gradient()
    monkeypatch.setattr(ways, "MOST_DETOURS", 0)
    costless = gradient()
    sampled = []
    for number in range(20):
        drawn = sampler.roll_out(prompts * 100, seed=100 + number)
        batch = collate(drawn, verdict_scores(drawn, REWARD))
        logprobs = forward.response_logprobs(policy, batch, 1.0)[0].sum(dim=1)
        scores = batch.scores - batch.scores.mean()
        sampled.append(flat(torch.autograd.grad((scores * logprobs).mean(), parameters)) * 200 / 199)
    directions = torch.stack([exact, costless, exact - costless])
    directions = directions / directions.norm(dim=1, keepdim=True)
    along = torch.stack(sampled) @ directions.T
    errors = along.std(dim=0) / 20**0.5
    assert ((along.mean(dim=0) - directions @ exact).abs() <= 4 * errors).all()
    assert (along.mean(dim=0) - directions @ costless)[2] > 8 * errors[2]


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])
