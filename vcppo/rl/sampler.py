"""From prompts to verified answers to tensors: the first half of every stage that looks at what a policy does."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vcppo.engines.base import Engine, Sampling
from vcppo.models.distributed import world
from vcppo.settings.reward import RewardSettings
from vcppo.tasks.base import Task
from vcppo.types import Prompt, Rollout, RolloutBatch, Verdict


def worth(verdict: Verdict, reward: RewardSettings) -> float:
    """What a verdict is worth before any shaping."""
    return {Verdict.CORRECT: reward.correct, Verdict.WRONG: reward.wrong, Verdict.UNREADABLE: reward.unreadable}[
        verdict
    ]


def roll_out(
    prompts: Sequence[Prompt],
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerFast,
    engine: Engine,
    sampling: Sampling,
    reward: RewardSettings,
    seed: int,
    first: int = 0,
) -> list[Rollout]:
    """One verified answer a prompt, in order; repeat a prompt to sample it more often.

    Answers of one seed may be sampled in shares: `first` is the number of this share's first one.
    """
    here, encoded = world(), task.encode(prompts, tokenizer)
    generations = engine.generate(encoded, sampling, seed=seed, first=first)
    texts = tokenizer.batch_decode([generation.tokens for generation in generations], skip_special_tokens=True)
    own = here.share(len(prompts))
    judgements = here.gather(task.judge(texts[own.start : own.stop], prompts[own.start : own.stop]))
    return [
        Rollout(prompt, ids, generation, text, verdict, worth(verdict, reward), note)
        for prompt, ids, generation, text, (verdict, note) in zip(
            prompts, encoded, generations, texts, judgements, strict=True
        )
    ]


def collate(rollouts: Sequence[Rollout]) -> RolloutBatch:
    """Right-pad answers into one batch; answers to the same prompt share a group."""
    lengths = torch.tensor([len(r.generation.tokens) for r in rollouts])
    prompt_lengths = torch.tensor([len(r.prompt_tokens) for r in rollouts])
    groups: dict[str, int] = {}
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    return RolloutBatch(
        input_ids=_pad([torch.tensor(r.prompt_tokens + r.generation.tokens) for r in rollouts]),
        prompt_lengths=prompt_lengths,
        response_mask=mask,
        old_logprobs=_pad([torch.tensor(r.generation.logprobs, dtype=torch.float32) for r in rollouts]),
        scores=torch.tensor([r.score for r in rollouts], dtype=torch.float32),
        correct=torch.tensor([r.verdict is Verdict.CORRECT for r in rollouts]),
        truncated=torch.tensor([r.generation.stop_reason == "length" for r in rollouts]),
        group=torch.tensor([groups.setdefault(r.prompt.name, len(groups)) for r in rollouts]),
    )


def place_scores(batch: RolloutBatch) -> Tensor:
    """[B, T] float32: each answer's score on its last generated token, 0 elsewhere."""
    return on_last_token(batch.scores, batch)


def on_last_token(x: Tensor, batch: RolloutBatch) -> Tensor:
    """[B] to [B, T]: each number on its answer's last generated token, 0 elsewhere."""
    placed = torch.zeros(batch.response_mask.shape, dtype=x.dtype)
    placed[torch.arange(len(x)), batch.lengths - 1] = x
    return placed


def _pad(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
