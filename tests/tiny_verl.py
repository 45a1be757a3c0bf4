"""verl with everything real that runs on a CPU: configuration, Ray, TransferQueue, replay buffer, trainer, loggers.

What needs a GPU has a stand-in: workers that know one number, the value of every state, and agents that reply at once.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from vcppo.verl_plugin.trainer import VcppoTrainer

PROMPTS, RESPONSES, LIMIT = 8, 1, 12


def configuration(*words: str) -> DictConfig:
    """verl's configuration, composed and resolved as its main does."""
    small = [
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.actor.use_dynamic_bsz=True",
        "trainer.v1.trainer_mode=vcppo",
        "trainer.logger=[file]",
        "trainer.val_before_train=False",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        f"data.train_batch_size={PROMPTS}",
        f"data.max_response_length={LIMIT}",
        f"actor_rollout_ref.rollout.n={RESPONSES}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
        "actor_rollout_ref.rollout.calculate_log_probs=False",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[*small, *words])
    OmegaConf.resolve(config)
    return config


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


class Agents:
    """Write 3 + i % 8 tokens to prompt i, right for even i; in those of four or more a tool speaks at `holes`."""

    def __init__(self, holes: tuple[int, ...] = ()) -> None:
        self.holes = holes

    def generate_sequences(self, batch: Any) -> None:
        keys, fields, tags = [], [], []
        for uid, index in zip(batch["uid"], batch["index"].tolist(), strict=True):
            length = 3 + index % 8
            mask = torch.ones(length, dtype=torch.int64)
            if length > 3:
                mask[list(self.holes)] = 0
            rewards = torch.zeros(length)
            rewards[-1] = 1.0 if index % 2 == 0 else -1.0
            prompt, response = torch.tensor([1, 2, index]), torch.full((length,), 5)
            fields.append(
                {
                    "uid": uid,
                    "prompts": prompt,
                    "responses": response,
                    "input_ids": torch.cat([prompt, response]),
                    "response_mask": mask,
                    "loss_mask": mask,
                    "rm_scores": rewards,
                    "num_turns": 2,
                }
            )
            keys.append(f"{uid}_0_0")
            size = {"prompt_len": 3, "response_len": length, "seq_len": 3 + length}
            steps = dict.fromkeys(("global_steps", "min_global_steps", "max_global_steps"), int(batch["global_steps"]))
            tags.append({"status": "success", **size, **steps})
        tq.kv_batch_put(keys=keys, partition_id="train", fields=tu.list_of_dict_to_tensordict(fields), tags=tags)
        uids = [str(uid) for uid in batch["uid"]]
        tq.kv_batch_put(keys=uids, partition_id="train", tags=[{"is_prompt": True, "status": "finished"}] * len(uids))


class Workers:
    """Every worker group of verl. Records what it is asked to do, and what it was trained on."""

    def __init__(self, learns: bool = True) -> None:
        self.value, self.learns = 0.0, learns
        self.calls: list[str] = []
        self.trained: list[dict[str, torch.Tensor]] = []
        self._dispatch_info = {"actor": [0]}

    def _whole(self, batch: KVBatchMeta, values: dict[str, float]) -> KVBatchMeta:
        """Put something for every token of prompt and response, as verl's engines do without padding."""
        ids = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["input_ids"])[
            "input_ids"
        ]
        fields = {name: nested([torch.full((len(row),), x) for row in ids.unbind()]) for name, x in values.items()}
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
        )
        return batch

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        return self._whole(batch, {"log_probs": -1.0, "entropy": 0.5})

    def infer_batch(self, batch: KVBatchMeta) -> SimpleNamespace:
        self._whole(batch, {"values": self.value})
        return SimpleNamespace(futures=[])

    def train_mini_batch(self, batch: KVBatchMeta) -> SimpleNamespace:
        self.calls.append("critic")
        names = ["prompts", "returns", "response_mask", "loss_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)
        self.trained.append({name: data[name] for name in names})
        if self.learns:
            mask = data["response_mask"].to_padded_tensor(0).bool()
            target = float(data["returns"].to_padded_tensor(0.0)[mask].mean())
            self.value += 0.5 * (target - self.value)
        metrics = {"critic/vf_loss": [0.5], "mfu": [0.0], "lr": [1e-3]}
        return SimpleNamespace(get=lambda: {"metrics": metrics})

    def update_actor(self, batch: KVBatchMeta) -> dict[str, Any]:
        self.calls.append("actor")
        return {"metrics": {"actor/pg_loss": [0.1], "mfu": [0.0]}}

    def save_checkpoint(self, path: str, remote: str | None, step: int, max_ckpt_to_keep: int | None) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "value").write_text(repr(self.value))

    def load_checkpoint(self, local_path: str, del_local_after_load: bool) -> None:
        self.value = float((Path(local_path) / "value").read_text())


class TinyTrainer(VcppoTrainer):
    """Our trainer, its `_setup` replaced: no GPU worker, no model, no engine is started."""

    workers: Workers

    def _setup(self) -> None:
        self.tokenizer = SimpleNamespace(eos_token_id=0, pad_token_id=0)
        self.train_dataloader = _Prompts()
        self.train_dataloader_it = None
        self.steps_per_epoch = 1
        self.total_training_steps = self.config.trainer.total_training_steps
        self.actor_rollout_wg = self.critic_wg = self.workers
        self.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
        self.checkpoint_manager = SimpleNamespace(update_weights=lambda step: None, sleep_replicas=lambda: None)
        self.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
        self.distillation_config = None
        self._init_dump_executor()
        self._load_checkpoint()
        self.replay_buffer.poll_interval = 0.01


class _Prompts:
    """The same prompts in every batch, as an epoch of a small data set."""

    def __iter__(self) -> Any:
        while True:
            index = torch.arange(PROMPTS)
            yield {"raw_prompt": np.array(["?"] * PROMPTS, dtype=object), "index": index}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(folder: Path, *words: str, workers: Workers | None = None, holes: tuple[int, ...] = ()) -> TinyTrainer:
    """Run verl's own loop to its end."""
    trainer_words = [f"trainer.default_local_dir={folder}/checkpoints", *words]
    TinyTrainer.workers = workers or Workers()
    trainer = TinyTrainer(configuration(*trainer_words))
    trainer.init()
    trainer.fit(Agents(holes))
    trainer.logger.finish(exit_code=0)
    return trainer
