"""Where a critic starts: fresh, saved, a reward model of others, of its own size, bounded."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from pretraining import FROM_POLICY, context, first_done, measured_in, spread
from tiny import tiny
from transformers import LlamaConfig, LlamaForSequenceClassification

from vcppo.errors import CheckpointError
from vcppo.models import forward
from vcppo.rl.rewards import score_range
from vcppo.stages.context import StageContext
from vcppo.stages.shared.critic_start import critic_for, start_of_critic
from vcppo.stages.shared.saved_responses import load_responses
from vcppo.stages.value_pretraining import value_pretraining
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.pretrained_critics import critic_folder, measurements_in
from vcppo.tasks import make_task


@pytest.mark.parametrize("bounded", ["false", "true"])
def test_a_fresh_critic_may_start_at_the_mean_score(before: Path, tmp_path: Path, bounded: str) -> None:
    assignments = ("critic.initial_value=mean-score", f"critic.bounded={bounded}")
    here = context(before, tmp_path, *assignments)
    responses = load_responses(here.earlier["answers"].path)
    mean = float(responses.scores.mean())
    at_zero = spread(start_of_critic(context(before, tmp_path / "zero")), responses)
    values = spread(start_of_critic(here), responses)
    if bounded == "false":
        torch.testing.assert_close(values, at_zero + mean)  # the same head, moved
    else:
        torch.testing.assert_close(values, 2.0 * torch.sigmoid(at_zero + math.log((1 + mean) / (1 - mean))) - 1.0)


@pytest.mark.parametrize("value", ["0.5", "mean-score"])
def test_a_critic_of_its_own_size_learns_as_any(before: Path, tmp_path: Path, value: str) -> None:
    given = ("critic.init=new", "critic.layers=2", "critic.hidden_size=24", f"critic.initial_value={value}")
    here = context(before, tmp_path, *given, "pretrain.steps=20", "pretrain.learning_rate=0.01")
    responses = load_responses(here.earlier["answers"].path)
    start = spread(start_of_critic(here), responses)
    assert float(start.mean()) == pytest.approx(
        float(responses.scores.mean()) if value == "mean-score" else 0.5, abs=0.3
    )
    value_pretraining(here)
    critic, _ = critic_for(first_done(here))
    assert (critic.config.hidden_size, len(critic.base_model.layers)) == (24, 2)
    assert measured_in(here)[-1].loss < 0.8 * measured_in(here)[0].loss
    other = context(before, tmp_path, *given, "pretrain.steps=20", "seed=1", "pretrain.learning_rate=0.01")
    assert not torch.equal(spread(start_of_critic(other), responses), start)
    assert addresses(here.settings)["cold-start"].key == addresses(tiny(FROM_POLICY))["cold-start"].key


def test_a_saved_critic_is_gone_on_from(before: Path, tmp_path: Path) -> None:
    first = context(before, tmp_path)
    value_pretraining(first)
    path = critic_folder(first.folder.path, 4)
    settings = tiny("critic.init=saved", f"critic.path={path}")
    second = StageContext(settings, StageFolder(tmp_path, addresses(settings)["value-pretraining"]), first.earlier)
    responses = load_responses(first.earlier["answers"].path)
    torch.testing.assert_close(
        spread(start_of_critic(second), responses), spread(critic_for(first_done(first))[0], responses)
    )


def test_a_reward_model_of_others_is_pretrained_on(before: Path, tmp_path: Path) -> None:
    """A sequence classifier, whose head has no bias."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = len(make_task(tiny().task).tokenizer())
    torch.manual_seed(0)
    options = {**shape, "num_labels": 1, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    for folder, known in {"theirs": tokens, "small": tokens - 1}.items():
        LlamaForSequenceClassification(LlamaConfig(vocab_size=known, **options)).save_pretrained(tmp_path / folder)
    here = context(before, tmp_path, "critic.init=saved", f"critic.path={tmp_path / 'theirs'}", "pretrain.steps=8")
    value_pretraining(here)
    losses = [m.loss for m in measurements_in(here.folder.path / "journal.jsonl")]
    assert losses[-1] < losses[0]
    critic, _ = critic_for(first_done(here))
    assert type(critic).__name__ == "LlamaForSequenceClassification"
    small = context(before, tmp_path, "critic.init=saved", f"critic.path={tmp_path / 'small'}")
    with pytest.raises(CheckpointError, match=rf"knows {tokens - 1} tokens, .* writes token {tokens - 1}; expected"):
        start_of_critic(small)


def test_a_critic_of_another_tokenizer_is_refused_though_it_knows_as_many_tokens(before: Path, tmp_path: Path) -> None:
    first = context(before, tmp_path)
    value_pretraining(first)
    path = tmp_path / "theirs"
    shutil.copytree(critic_folder(first.folder.path, 4), path)
    tokens = json.loads((path / "tokenizer.json").read_text())
    words = tokens["model"]["vocab"]
    words["0"], words["1"] = words["1"], words["0"]
    (path / "tokenizer.json").write_text(json.dumps(tokens))
    other = context(before, tmp_path, "critic.init=saved", f"critic.path={path}")
    with pytest.raises(CheckpointError, match=r"its tokenizer has '[01]' as token \d+, the policy's as token \d+;"):
        start_of_critic(other)


def test_a_bounded_critic_learns_and_stays_bounded(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "critic.bounded=true", "pretrain.steps=20", "pretrain.learning_rate=0.02")
    value_pretraining(here)
    losses = [m.loss for m in measurements_in(here.folder.path / "journal.jsonl")]
    assert losses[-1] < 0.8 * losses[0]
    critic, _ = critic_for(first_done(here))
    assert forward.value_range(critic) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("assignments", "wanted"),
    [
        ((), (-1.0, 1.0)),
        (("reward.unreadable=-2", "reward.correct=3"), (-2.0, 3.0)),
        (("reward.truncated=-4",), (-4.0, 1.0)),
        (("reward.correct=3", "reward.wrong=2", "reward.unreadable=2"), (2.0, 3.0)),
        (("reward.overlong_share=0.2", "reward.overlong_penalty=0.5"), (-1.5, 1.0)),
    ],
)
def test_a_bounded_critics_range_holds_every_score(assignments: tuple[str, ...], wanted: tuple[float, float]) -> None:
    assert score_range(tiny(*assignments).reward, gamma=1.0) == wanted


def test_discounted_scores_are_in_a_bounded_critics_range_too() -> None:
    reward = tiny("reward.correct=3", "reward.wrong=2", "reward.unreadable=2").reward
    assert score_range(reward, gamma=0.9) == (0.0, 3.0)
    assert score_range(tiny().reward, gamma=0.9) == (-1.0, 1.0)
