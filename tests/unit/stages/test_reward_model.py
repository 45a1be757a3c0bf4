"""Bradley-Terry on pairs of responses to one prompt."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import new_policy, plainly, random_batch, tiny

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.errors import TrainingError
from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.rl.critic_update import read_values
from vcppo.seeding import seed_for
from vcppo.settings.run import RunSettings
from vcppo.stages import reward_model as stage
from vcppo.stages.context import StageContext
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal
from vcppo.tasks import make_task
from vcppo.types import RolloutBatch


def test_pairs_are_right_and_not_right_responses_to_one_prompt() -> None:
    batch = dataclasses.replace(
        random_batch([1] * 7),
        group=torch.tensor([0, 0, 0, 1, 1, 2, 2]),
        correct=torch.tensor([True, False, False, True, True, False, False]),
        scores=torch.tensor([-3.0, 1.0, 1.0, 1.0, -3.0, 1.0, -3.0]),  # what verdicts are worth does not matter
    )
    assert stage.pair_pools(batch) == ({0: [0]}, {0: [1, 2]})  # group 1 has no wrong one, group 2 no right one
    assert stage.pair_pools(dataclasses.replace(batch, correct=torch.zeros(7, dtype=torch.bool))) == ({}, {})


def prepared(out: Path, settings: RunSettings) -> StageContext:
    """A reward-model stage over a random policy, as if a cold start had left it."""
    found = addresses(settings)
    earlier = {"cold-start": StageFolder(out, found["cold-start"])}
    save_model(new_policy(), make_task(settings.task).tokenizer(), earlier["cold-start"].path / "policy")
    return StageContext(settings, StageFolder(out, found["reward-model"]), earlier)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ((), (1.0, 1.0, None)),
        (("rollout.max_tokens=7",), (1.0, 1.0, 7)),
        (("rollout.max_tokens=1",), (1.0, 1.0, 1)),
        (("rollout.temperature=0.7",), (0.7, 1.0, None)),
        (("rollout.top_p=0.5",), (1.0, 0.5, None)),
        (("rollout.temperature=2", "rollout.top_p=0.9", "rollout.max_tokens=5"), (2.0, 0.9, 5)),
    ],
)
def test_its_responses_are_drawn_as_rollouts_are(
    said: tuple[str, ...],
    wanted: tuple[float, float, int | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = prepared(tmp_path, tiny("reward_model.responses=32", *said))
    asked, generate = [], TorchEngine.generate

    def note(engine: TorchEngine, prompts: Any, sampling: Sampling, **options: Any) -> Any:
        asked.append(sampling)
        return generate(engine, prompts, sampling, **options)

    monkeypatch.setattr(TorchEngine, "generate", note)
    responses = stage._sample_responses(context)
    temperature, top_p, limit = wanted
    assert set(asked) == {Sampling(temperature, top_p, limit or context.task.max_tokens)}
    assert int(responses.lengths.max()) <= (limit or context.task.max_tokens)


def separable() -> RolloutBatch:
    """Right responses end with token 5, wrong ones with 6; nothing else tells them apart."""
    batch = random_batch([4] * 16, prompt_lengths=[2] * 16)
    correct = torch.tensor([True, False] * 8)
    batch.input_ids[:, -1] = torch.where(correct, 5, 6)
    return dataclasses.replace(batch, correct=correct, group=torch.arange(16) // 2)


def test_it_learns_to_tell_right_from_wrong_and_loads_as_a_critic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = separable()
    monkeypatch.setattr(stage, "_sample_responses", lambda context: batch)
    settings = tiny("reward_model.steps=40", "reward_model.learning_rate=0.01", "reward_model.centering=0.1")
    context = prepared(tmp_path, settings)
    assert stage.reward_model(context) == {"steps": 40.0, "prompts_with_both": 8.0}
    told = [record["values"] for record in read_journal(context.folder.path / "journal.jsonl")]
    assert len(told) == 40
    assert told[0]["reward_model/loss"] == pytest.approx(0.693, abs=0.1)  # log 2 while it knows nothing
    assert told[-1]["reward_model/loss"] < 0.1
    assert told[-1]["reward_model/pair_accuracy"] == 1.0
    assert abs(told[-1]["reward_model/centre"]) < 0.5
    critic = plainly(loading.load_critic(context.folder.path / "critic"))
    with torch.inference_mode():
        scores = forward.last_token_values(critic, batch)
    assert torch.equal(scores > 0, batch.correct)
    assert read_values(critic, batch, 100).shape == batch.response_mask.shape


def test_its_gradient_does_not_depend_on_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_sample_responses", lambda context: separable())
    norms = []
    for size in (1, 1000):
        context = prepared(tmp_path / str(size), tiny("reward_model.steps=1", f"micro_batch_tokens={size}"))
        stage.reward_model(context)
        norms.append(read_journal(context.folder.path / "journal.jsonl")[0]["values"]["reward_model/grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_its_gradient_is_that_of_the_loss_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-log sigmoid(better - worse) + centering * (better + worse)^2, mean over pairs, by automatic differentiation."""
    batch = separable().take(torch.arange(2))  # one pair: nothing to draw
    monkeypatch.setattr(stage, "_sample_responses", lambda context: batch)
    settings = tiny("reward_model.steps=1", "reward_model.centering=0.3", "reward_model.pairs=3")
    context = prepared(tmp_path, settings)
    stage.reward_model(context)
    told = read_journal(context.folder.path / "journal.jsonl")[0]["values"]
    seed = seed_for(0, "reward-model", "head")
    model = plainly(loading.load_critic(context.first_policy, head_seed=seed))
    better, worse = forward.last_token_values(model, batch)
    loss = -torch.nn.functional.logsigmoid(better - worse) + 0.3 * (better + worse) ** 2
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert told["reward_model/grad_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_nothing_right_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = dataclasses.replace(separable(), correct=torch.zeros(16, dtype=torch.bool))
    monkeypatch.setattr(stage, "_sample_responses", lambda context: hopeless)
    with pytest.raises(TrainingError, match=r"none of 16 responses .* raise reward_model.responses"):
        stage.reward_model(prepared(tmp_path, tiny()))
