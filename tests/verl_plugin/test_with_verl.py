"""The plugin inside verl 0.9.1, on a CPU: everything of verl's that does not need a GPU is verl's own."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vcppo.errors import ConfigError
from vcppo.rl import early_warning
from vcppo.store.journal import read_journal
from vcppo.studies.verl.cells import merge_command
from vcppo.verl_plugin.estimates import ResponseBatch, estimate, held_out_rows
from vcppo.verl_plugin.settings import PluginSettings

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    """Ray and a TransferQueue of one storage unit, for the whole module."""
    import ray
    import transfer_queue as tq
    from tiny_verl import configuration

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    tq.init(configuration().transfer_queue)
    yield
    tq.close()
    ray.shutdown()


# Our advantages beside verl's own functions


def batch(holes: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    mask = (torch.arange(40) < torch.tensor([40, 17, 1, 33])[:, None]).to(torch.int64)
    if holes:
        mask[0, 5:9], mask[3, 2] = 0, 0
    return torch.randn(4, 40, generator=rng) * mask, torch.randn(4, 40, generator=rng), mask


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0)])
def test_one_lambda_gives_what_verl_gives(holes: bool, gamma: float, lam: float) -> None:
    from verl.trainer.ppo.core_algos import compute_gae_advantage_return

    rewards, values, mask = batch(holes)
    theirs = compute_gae_advantage_return(rewards, values, mask, gamma, lam)
    settings = PluginSettings(lambda_actor=lam, lambda_critic=lam)
    ours = estimate(ResponseBatch(rewards, values, mask.bool()), settings, gamma=gamma)
    live = mask.bool()
    torch.testing.assert_close(ours.advantages[live], theirs[0][live], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.returns[live], theirs[1][live], rtol=1e-6, atol=1e-6)


def test_two_lambdas_give_what_two_calls_of_verl_s_give() -> None:
    from verl.trainer.ppo.core_algos import compute_gae_advantage_return

    rewards, values, mask = batch()
    live = mask.bool()
    ours = estimate(
        ResponseBatch(rewards, values, live), PluginSettings(lambda_actor=0.9, lambda_critic=1.0), gamma=1.0
    )
    actor, critic = (compute_gae_advantage_return(rewards, values, mask, 1.0, lam) for lam in (0.9, 1.0))
    torch.testing.assert_close(ours.advantages[live], actor[0][live], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.returns[live], critic[1][live], rtol=1e-6, atol=1e-6)


def test_a_length_adaptive_lambda_gives_what_verl_s_gives_with_one_a_row() -> None:
    from verl.trainer.ppo.core_algos import compute_gae_advantage_return

    rewards, values, mask = batch()
    live = mask.bool()
    ours = estimate(ResponseBatch(rewards, values, live), PluginSettings(length_adaptive_alpha=0.1), gamma=1.0)
    lam = 1 - 1 / (0.1 * mask.sum(dim=1)).clamp(min=1)
    theirs = compute_gae_advantage_return(rewards, values, mask, 1.0, lam)[0]
    torch.testing.assert_close(ours.advantages[live], theirs[live], rtol=1e-6, atol=1e-6)


def test_a_masked_response_is_neither_in_verl_s_value_loss_nor_in_its_denominator() -> None:
    from verl.trainer.ppo.core_algos import compute_value_loss

    _, values, mask = batch()
    returns, predicted = torch.ones_like(values), values + 0.5
    trained = mask.clone()
    trained[1] = 0
    ours = {"response_mask": trained, "batch_num_tokens": int(trained.sum())}
    kept = [0, 2, 3]
    alone = {"response_mask": mask[kept], "batch_num_tokens": int(mask[kept].sum())}
    loss, _ = compute_value_loss(predicted, returns, values, cliprange_value=1e9, **ours)
    expected, _ = compute_value_loss(predicted[kept], returns[kept], values[kept], cliprange_value=1e9, **alone)
    torch.testing.assert_close(loss, expected)
    plain = 0.5 * (predicted - returns)[kept][mask[kept].bool()].square().mean()
    torch.testing.assert_close(expected, plain)  # a clip that is never reached leaves the plain squared error


# The trainer in verl's loop


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    return tmp_path / "metrics.jsonl"


def test_a_wrong_setting_ends_the_run_before_it_begins() -> None:
    from tiny_verl import configuration

    from vcppo.verl_plugin.trainer import VcppoTrainer

    with pytest.raises(ConfigError, match=r"algorithm\.vcppo\.lambda_critic = 2: input should be less than or equal"):
        VcppoTrainer(configuration("+algorithm.vcppo.lambda_critic=2"))


def test_the_replay_buffer_is_the_synchronous_one() -> None:
    from tiny_verl import configuration
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    from vcppo.verl_plugin.trainer import VcppoTrainer

    assert type(VcppoTrainer(configuration()).replay_buffer) is ReplayBuffer


@pytest.mark.parametrize("holes", [(), (1,), (-1,), (-2, -1)])
def test_verl_s_loop_trains_on_our_targets(
    queue: None, tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str], holes: tuple[int, ...]
) -> None:
    from tiny_verl import Workers, train

    workers = Workers()
    words = ["trainer.total_training_steps=3", "+algorithm.vcppo.lambda_critic=0.5", "algorithm.lam=0.9"]
    train(tmp_path, *words, "+algorithm.vcppo.positions_every=2", workers=workers, holes=holes)
    assert workers.calls == ["critic", "actor"] * 3
    first = workers.trained[0]  # V was 0 everywhere: lambda-returns are 0.5^(own tokens to come) of the reward
    for prompt, returns, mask in zip(
        *(first[name].unbind() for name in ("prompts", "returns", "response_mask")), strict=True
    ):
        sign = 1.0 if int(prompt[2]) % 2 == 0 else -1.0
        own = int(mask.sum())
        expected = sign * 0.5 ** torch.arange(own - 1, -1, -1)
        torch.testing.assert_close(returns[mask.bool()], expected.to(returns.dtype))
    steps = logged(log)
    assert [line["step"] for line in steps] == [1, 2, 3]
    data = steps[0]["data"]
    assert data["rollout/accuracy"] == 0.5
    assert data["value/explained_variance"] == pytest.approx(0.0)  # a constant critic
    assert data["value/bias_from_00000"] == pytest.approx(0.0)  # V is 0, and as many responses are right as wrong
    assert data["rollout/truncated_rate"] == 0.0
    moved = 7 if -1 in holes else 0  # of the eight responses one has three tokens
    assert [line["data"]["rollout/moved_scores"] for line in steps] == [moved] * 3
    assert capsys.readouterr().err.count("stood on masked tokens") == (moved > 0)
    tables = [(r["name"], r["step"]) for r in read_journal(tmp_path / "checkpoints" / "vcppo.jsonl")]
    names = ("critic_by_position", "critic_by_fraction", "critic_calibration")
    assert tables == [(name, step) for step in (1, 3) for name in names]


def test_pretraining_leaves_the_actor_alone_and_holds_prompts_out(queue: None, tmp_path: Path, log: Path) -> None:
    from tiny_verl import PROMPTS, Workers, train

    workers = Workers()
    words = ["+algorithm.vcppo.pretrain.steps=4", "+algorithm.vcppo.pretrain.held_out=0.4"]
    train(
        tmp_path,
        *words,
        "+algorithm.vcppo.pretrain.evaluate_every=2",
        "+algorithm.vcppo.lambda_critic=0.5",
        workers=workers,
    )
    assert workers.calls == ["critic"] * 4
    prompts = [[1, 2, index] for index in range(PROMPTS)]
    held_out = {p[2] for p, out in zip(prompts, held_out_rows(prompts, share=0.4, seed=0), strict=True) if out}
    assert 0 < len(held_out) < PROMPTS
    for trained in workers.trained:
        parts = [trained[name].unbind() for name in ("prompts", "returns", "response_mask", "loss_mask")]
        for prompt, returns, mask, loss_mask in zip(*parts, strict=True):
            index = int(prompt[2])
            assert bool(mask.any()) == (index not in held_out)
            assert torch.equal(mask, loss_mask)
            assert set(returns.tolist()) == {1.0 if index % 2 == 0 else -1.0}  # Monte-Carlo, not lambda 0.5
    measured = {line["step"]: line["data"] for line in logged(log) if "pretrain/held_out_loss" in line["data"]}
    assert set(measured) == {2, 4}
    word = json.loads((tmp_path / "checkpoints" / "pretrained.json").read_text())
    assert (word["checkpoint"], word["updates"], word["settled"]) == ("global_step_4", 4, False)
    assert word["held_out_loss"] == pytest.approx(measured[4]["pretrain/held_out_loss"])
    assert (tmp_path / "checkpoints" / "global_step_4" / "critic" / "value").exists()


def test_pretraining_stops_once_it_has_settled_and_saves_what_it_measured(
    queue: None, tmp_path: Path, log: Path
) -> None:
    from tiny_verl import Workers, train

    plan = ["evaluate_every=1", "patience=2", "held_out=0.4", "min_delta=0.01"]
    words = [f"+algorithm.vcppo.pretrain.{word}" for word in plan]
    words += ["trainer.total_training_steps=50", "+algorithm.vcppo.pretrain.steps=converge"]
    workers = Workers(learns=False)
    trainer = train(tmp_path, *words, workers=workers)
    assert len(logged(log)) == 3  # the first measurement is the best, two more are no better
    assert workers.calls == ["critic"] * 2  # the third saw that it had settled
    word = json.loads((tmp_path / "checkpoints" / "pretrained.json").read_text())
    assert (word["checkpoint"], word["updates"], word["settled"]) == ("global_step_3", 2, True)
    assert trainer.total_training_steps == 3
    # Killed after the checkpoint, before its last word: the next start sees that nothing is left to do.
    (tmp_path / "checkpoints" / "pretrained.json").unlink()
    again = Workers(learns=False)
    train(tmp_path, *words, workers=again)
    assert again.calls == []
    assert json.loads((tmp_path / "checkpoints" / "pretrained.json").read_text())["checkpoint"] == "global_step_3"


def test_a_run_that_goes_on_takes_back_what_wset_values_after_its_checkpoint(
    queue: None, tmp_path: Path, log: Path
) -> None:
    from tiny_verl import train

    words = ["trainer.save_freq=2", "+algorithm.vcppo.positions_every=1"]
    train(tmp_path, *words, "trainer.total_training_steps=2")
    journal = tmp_path / "checkpoints" / "vcppo.jsonl"
    before = [r["step"] for r in read_journal(journal)]
    from vcppo.store.journal import Journal

    Journal(journal).table("critic_by_position", 3, {"n": [1]})  # of a step that ended with the process
    train(tmp_path, *words, "trainer.total_training_steps=4")
    assert [r["step"] for r in read_journal(journal)] == [*before, 3, 3, 3, 4, 4, 4]  # three tables a step


@pytest.mark.parametrize("save_freq", [-1, 2, 3])
def test_a_step_that_warns_is_saved_and_the_last_one(
    queue: None, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, save_freq: int
) -> None:
    from tiny_verl import Workers, train

    monkeypatch.setattr(early_warning, "warnings_of", lambda run: ["truncation"] if len(run) >= 2 else [])
    words = ["trainer.total_training_steps=5", f"trainer.save_freq={save_freq}", "+algorithm.vcppo.on_warning=stop"]
    workers = Workers()
    train(tmp_path, *words, workers=workers)
    assert workers.calls == ["critic", "actor"] * 2
    assert [line["data"]["early_warning/truncation"] for line in logged(log)] == [0.0, 1.0]
    assert (tmp_path / "checkpoints" / "global_step_2" / "critic" / "value").exists()
    again = Workers()
    train(tmp_path, *words, workers=again)
    assert again.calls == [], "a run that ended by a warning has nothing left to do"


def test_an_estimator_without_a_critic_keeps_verl_s_advantages(queue: None, tmp_path: Path, log: Path) -> None:
    from tiny_verl import Workers, train

    workers = Workers()
    train(tmp_path, "algorithm.adv_estimator=grpo", "trainer.total_training_steps=1", workers=workers)
    assert workers.calls == ["actor"]
    data = logged(log)[0]["data"]
    assert data["rollout/accuracy"] == 0.5
    assert not any(name.startswith("value/") for name in data)


def test_verl_s_own_estimators_hear_of_a_score_on_a_masked_token(
    queue: None, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REINFORCE++ forgets what stands on masked tokens; without a critic nothing is computed anew by us."""
    import transfer_queue as tq
    from tiny_verl import Workers, train

    class Seeing(Workers):
        def update_actor(self, batch: Any) -> dict[str, Any]:
            names = ["prompts", "returns", "response_mask"]
            self.trained.append(tq.kv_batch_get(batch.keys, partition_id=batch.partition_id, select_fields=names))
            return super().update_actor(batch)

    workers = Seeing()
    words = ["algorithm.adv_estimator=reinforce_plus_plus", "trainer.total_training_steps=1"]
    train(tmp_path, *words, workers=workers, holes=(-1,))
    (trained,) = workers.trained
    parts = [trained[name].unbind() for name in ("prompts", "returns", "response_mask")]
    for prompt, returns, mask in zip(*parts, strict=True):
        assert set(returns[mask.bool()].tolist()) == {1.0 if int(prompt[2]) % 2 == 0 else -1.0}
    assert logged(log)[0]["data"]["rollout/moved_scores"] == 7


# The critic out of verl again


def test_a_merged_critic_is_a_critic_of_ours(tmp_path: Path) -> None:
    """One shard as verl's FSDP checkpoint of a critic has it, through verl's merger, into `vcppo.models.loading`."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, LlamaConfig, LlamaForTokenClassification, PreTrainedTokenizerFast

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=8, num_labels=1, architectures=["LlamaForTokenClassification"], **shape)
    critic = LlamaForTokenClassification(config)
    shards = tmp_path / "critic"
    (shards / "huggingface").mkdir(parents=True)
    config.save_pretrained(shards / "huggingface")
    words = Tokenizer(models.WordLevel({str(i): i for i in range(8)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", pad_token="0").save_pretrained(
        shards / "huggingface"
    )
    (shards / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))
    torch.save(critic.state_dict(), shards / "model_world_size_1_rank_0.pt")
    done = subprocess.run(merge_command(shards, tmp_path / "merged"), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    from vcppo.models.loading import load_critic

    merged = load_critic(tmp_path / "merged")
    ids = torch.tensor([[3, 4, 5]])
    expected = critic.eval()(input_ids=ids).logits
    torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=0.05, atol=0.01)  # it writes bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").eos_token == "1"
