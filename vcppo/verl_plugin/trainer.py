"""verl's synchronous PPO trainer with two lambdas, value pretraining, and critic metrics against Monte-Carlo returns.

Importing this module registers it: the entry point of group `verl.plugins` does so where vcppo is installed beside
verl, and VERL_USE_EXTERNAL_MODULES=vcppo.verl_plugin.trainer elsewhere. Then

    python -m verl.trainer.main_ppo trainer.v1.trainer_mode=vcppo algorithm.adv_estimator=gae \\
        +algorithm.vcppo.lambda_actor=0.95 +algorithm.vcppo.lambda_critic=1.0 ...

is a run of verl in every other respect. Settings are in vcppo/verl_plugin/settings.py.
"""

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.workers.utils.padding import response_to_nested

from vcppo.maths.settling import Measurement, settled
from vcppo.rl.critic_tables import critic_tables
from vcppo.rl.early_warning import EarlyWarning
from vcppo.store.journal import Journal
from vcppo.store.pretrained_critics import measurements_in
from vcppo.studies.verl import TRAINER
from vcppo.studies.verl.records import cut_after
from vcppo.system.files import read_json, write_json
from vcppo.verl_plugin.estimates import (
    Estimates,
    HeldOut,
    PlacedScores,
    ResponseBatch,
    advice,
    alignment,
    estimate,
    held_out_rows,
    observed,
    on_unmasked_tokens,
    position_metrics,
    response_metrics,
    score_metrics,
    score_warnings,
)
from vcppo.verl_plugin.settings import LAMBDA_ESTIMATORS, SECTION, plugin_settings


@register_trainer(TRAINER)
class VcppoTrainer(PPOTrainerSync):  # type: ignore[misc]
    """`PPOTrainerSync` with our advantages; in pretraining mode the critic alone is trained, until it has settled.

    Every step runs as verl runs it, but that scores on masked tokens are moved first, whatever the estimator. verl's
    own GAE is computed and then replaced, which costs a loop over tokens on the driver, and spares us a copy of what
    verl does before it: KL in the reward, rollout correction.

    Raises:
        ConfigError: `algorithm.vcppo` is not valid, or does not go with the rest.
    """

    def __init__(self, config: DictConfig) -> None:
        self.vcppo = plugin_settings(config)
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # any other name selects the asynchronous replay buffer
            if self.vcppo.pretrain is not None:
                config.trainer.critic_warmup = sys.maxsize  # verl trains the actor from this step on
                if self.vcppo.pretrain.steps != "converge":
                    config.trainer.total_training_steps = self.vcppo.pretrain.steps
        super().__init__(config)
        self._held_out = HeldOut()
        self._measurements: list[Measurement] = []
        self._settled = False
        self._warned: set[str] = set()
        self._early_warning = EarlyWarning()

    def on_init_end(self) -> None:
        """Cut the journal after the checkpoint that verl has loaded: later steps will be logged again."""
        super().on_init_end()
        cut_after(self.journal_path, self.global_steps)
        self._journal = Journal(self.journal_path)
        self._measurements = measurements_in(self.journal_path)
        if self._warnings_path.exists():
            self._early_warning.load(read_json(self._warnings_path), self.global_steps)
        if self._has_settled():  # saved, and killed before pretrained.json
            self._settled, self.total_training_steps = True, self.global_steps
            self._write_outcome()
        if self._ends_by_warning():
            self.total_training_steps = self.global_steps

    @property
    def journal_path(self) -> Path:
        """File of tables and measurements; its steps are verl's, counted from 1."""
        return Path(self.vcppo.journal or os.path.join(self.config.trainer.default_local_dir, "vcppo.jsonl"))

    @property
    def _warnings_path(self) -> Path:
        """File of what early warnings have seen, for a run that goes on from a checkpoint."""
        return self.journal_path.with_name("early_warning.json")

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        scores = self._place_scores(batch)
        batch = super()._compute_advantage(batch, metrics)
        in_reward = self.config.algorithm.use_kl_in_reward
        fields = ["prompts", "response_mask", "rm_scores"]
        fields += ["values"] if self.use_critic else []
        fields += ["token_level_rewards"] if in_reward else []
        nested = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        real = torch.tensor([not tag.get("is_padding", False) for tag in batch.tags], dtype=torch.bool)
        limit = int(self.config.data.max_response_length)
        lengths = nested["response_mask"].offsets().diff()
        totals = torch.stack([row.float().sum() for row in nested["rm_scores"].unbind()])
        metrics |= response_metrics(totals[real], lengths[real], correct_above=self.vcppo.correct_above, limit=limit)
        if self.config.algorithm.adv_estimator not in LAMBDA_ESTIMATORS:
            self._log_scores(score_metrics(scores.moved, scores.lost), metrics, int(real.sum()))
            self._warn_early(totals[real], lengths[real], {}, metrics, limit)
            return batch
        padded = nested.select(*fields[1:]).to_padded_tensor()
        mask, rewards = padded["response_mask"].bool(), padded["rm_scores"].float()
        if in_reward:  # rollout correction may have masked more: of such a token the score counts, its penalty does not
            rewards = torch.where(mask, padded["token_level_rewards"].float(), rewards)
        responses = ResponseBatch(rewards, padded["values"].float(), mask)
        estimates = estimate(responses, self.vcppo, gamma=float(self.config.algorithm.gamma))
        self._log_scores(score_metrics(scores.moved | estimates.moved, scores.lost), metrics, int(real.sum()))
        self._log_estimates(estimates, metrics, limit)
        names = [tuple(row.tolist()) for row in nested["prompts"].unbind()]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        problem = torch.tensor([numbers[name] for name in names])
        surrogate = alignment(estimates, problem, rows=real, step=self.global_steps)
        self._warn_early(totals[real], lengths[real], surrogate, metrics, limit)
        output = {"advantages": estimates.advantages, "returns": estimates.returns}
        if self.vcppo.pretrain is not None:
            trained = self._hold_out(responses, estimates, nested, metrics).to(padded["response_mask"].dtype)
            # A masked token is neither in verl's value loss nor, by loss_mask, in what that is divided by.
            output |= {"response_mask": trained, "loss_mask": trained}
        nested_output = {name: response_to_nested(x, nested["response_mask"]) for name, x in output.items()}
        fields_out = TensorDict(nested_output, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields_out)

    def _place_scores(self, batch: KVBatchMeta) -> PlacedScores:
        """Move scores off masked tokens, for us and for verl's estimators."""
        nested = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask", "rm_scores"]
        )
        padded = nested.to_padded_tensor()
        scores = on_unmasked_tokens(padded["rm_scores"].float(), padded["response_mask"].bool())
        if bool(scores.moved.any()):
            moved = {"rm_scores": response_to_nested(scores.rewards, nested["response_mask"])}
            fields = TensorDict(moved, batch_size=len(batch))
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        return scores

    def _log_scores(self, counts: dict[str, float], metrics: dict[str, Any], responses: int) -> None:
        """Log counts to verl's trackers in every step, and warn once per run."""
        metrics |= counts
        for name, words in score_warnings(counts, step=self.global_steps, responses=responses).items():
            if name not in self._warned:
                self._warned.add(name)
                print(f"vcppo: {words}", file=sys.stderr)

    def _warn_early(
        self,
        scores: torch.Tensor,
        lengths: torch.Tensor,
        surrogate: dict[str, float],
        metrics: dict[str, Any],
        limit: int,
    ) -> None:
        """Log whether this step breaks a rule, and say so once; not in pretraining, whose policy stands still."""
        if self.vcppo.pretrain is not None:
            return
        score_z = surrogate.get("alignment/surrogate_score_z", math.nan)
        now = observed(scores, lengths, correct_above=self.vcppo.correct_above, limit=limit, score_z=score_z)
        if now is None:
            return
        step = self.global_steps - 1  # iterations are counted from 0
        metrics |= surrogate
        metrics |= self._early_warning.watch(now, step=step, advice=lambda rule: advice(rule, self.vcppo))
        write_json(self._warnings_path, self._early_warning.state())

    def _log_estimates(self, estimates: Estimates, metrics: dict[str, Any], limit: int) -> None:
        """Log scalars to verl's trackers, and every few steps tables to the journal."""
        metrics |= estimates.metrics
        closed, monte_carlo, bins = estimates.closed, estimates.closed_monte_carlo, self.vcppo.position_bins
        if bins:
            metrics |= position_metrics(closed, monte_carlo, bins=bins, limit=limit)
        if (self.global_steps - 1) % self.vcppo.positions_every:
            return
        parts = (closed.values, monte_carlo, closed.response_mask)
        for name, columns in critic_tables(*parts, limit=limit).items():
            self._journal.table(name, self.global_steps, columns)

    # Value pretraining

    def _hold_out(
        self, responses: ResponseBatch, estimates: Estimates, nested: TensorDict, metrics: dict[str, Any]
    ) -> torch.Tensor:
        """Return [B, T] bool: the tokens that the critic may learn from. The held-out ones measure it instead."""
        plan = self.vcppo.pretrain
        assert plan is not None
        prompts = [row.tolist() for row in nested["prompts"].unbind()]
        rows = held_out_rows(prompts, share=plan.held_out, seed=plan.seed)
        live = responses.response_mask
        if not bool((live & ~rows[:, None]).any()):  # a step must train on something
            rows = torch.zeros_like(rows)
        self._held_out.add(responses, estimates.monte_carlo, rows)
        metrics["pretrain/held_out_tokens"] = float((live & rows[:, None]).sum())
        if self.global_steps % plan.evaluate_every == 0 and self._held_out.tokens:
            measurement, measured = self._held_out.measure(self.global_steps)
            metrics |= measured
            self._journal.metrics(self.global_steps, measured)
            self._measurements.append(measurement)
            self._settled = self._has_settled()
        return live & ~rows[:, None]

    def _has_settled(self) -> bool:
        plan = self.vcppo.pretrain
        if plan is None or plan.steps != "converge":
            return False
        return settled(self._measurements, patience=plan.patience, min_delta=plan.min_delta) is not None

    def _update_critic(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Skip the update once the critic has settled: it is saved as it was measured."""
        return batch if self._settled else super()._update_critic(batch, metrics)

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, Any]) -> KVBatchMeta:
        """Run one step; the last one of pretraining saves the critic and records where, then verl's loop ends.

        So does one that warns, where `on_warning` is `stop`.
        """
        planned = self.global_steps >= self.total_training_steps
        batch = super().step(metrics, timing_raw)
        if self.vcppo.pretrain is not None and (planned or self._settled):
            self._end(planned)
            self._write_outcome()
        elif self._ends_by_warning() and not planned:
            print(f"vcppo: training ends after step {self.global_steps}: {SECTION}.on_warning = stop", file=sys.stderr)
            self._end(planned)
        return batch

    def _ends_by_warning(self) -> bool:
        return self.vcppo.on_warning == "stop" and bool(self._early_warning.since)

    def _end(self, planned: bool) -> None:
        """Have verl's loop end with this step, its checkpoint saved."""
        every = self.config.trainer.save_freq
        if every <= 0 or not (planned or self.global_steps % every == 0):  # else verl saves after this step
            self._save_checkpoint()
        self.total_training_steps = self.global_steps

    def _write_outcome(self) -> None:
        """Write pretrained.json beside verl's checkpoints: which of them it is, and why it is the last."""
        last = self._measurements[-1] if self._measurements else None
        write_json(
            Path(self.config.trainer.default_local_dir) / "pretrained.json",
            {
                "checkpoint": f"global_step_{self.global_steps}",
                "updates": self.global_steps - int(self._settled),
                "settled": self._settled,
                "held_out_loss": _finite(last.loss) if last else None,
                "explained_variance": _finite(last.explained_variance) if last else None,
            },
        )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
