"""From prompts to verified responses to tensors: the first half of every stage that samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vcppo.engines.base import Engine, Sampling
from vcppo.models.distributed import world
from vcppo.tasks.base import Task
from vcppo.tasks.judging import judge
from vcppo.types import Judgement, Prompt, Rollout, RolloutBatch, Verdict


@dataclass(frozen=True)
class Sampler:
    """A task's prompts in, verified responses out.

    Attributes:
        engine: samples from the weights of its last update.
        sampling: temperature, nucleus and length limit of every response.
    """

    task: Task
    tokenizer: PreTrainedTokenizerFast
    engine: Engine
    sampling: Sampling

    def roll_out(self, prompts: Sequence[Prompt], *, seed: int, first: int = 0) -> list[Rollout]:
        """Sample one verified response per prompt, in order; repeat a prompt to sample it more often.

        Responses of one seed may be sampled in shares: `first` is the number of this share's first one.
        """
        ranks, encoded = world(), self.task.encode(prompts, self.tokenizer)
        generations = self.engine.generate(encoded, self.sampling, seed=seed, first=first)
        texts = self.texts([generation.tokens for generation in generations])
        share = ranks.share(len(prompts))
        judgements = ranks.gather(judge(self.task, texts[share.start : share.stop], prompts[share.start : share.stop]))
        return [
            Rollout(prompt, ids, generation, text, *judgement)
            for prompt, ids, generation, text, judgement in zip(
                prompts, encoded, generations, texts, judgements, strict=True
            )
        ]

    def texts(self, responses: Sequence[Sequence[int]]) -> list[str]:
        """Decode responses, given as token ids, as the verifier reads them."""
        texts: list[str] = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        return texts

    def judge(self, responses: Sequence[Sequence[int]], prompts: Sequence[Prompt]) -> Sequence[Judgement]:
        """Verdicts on responses that are given as token ids."""
        return judge(self.task, self.texts(responses), prompts)

    def step_starts(self, responses: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return where the reasoning steps of each response begin, in tokens, 0 first."""
        return step_starts(responses, self.task, self.tokenizer)


def step_starts(responses: Sequence[Sequence[int]], task: Task, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Return where the reasoning steps of each response (token ids) begin, in tokens, 0 first.

    A model may have more tokens than its tokenizer has names for: those are no text.
    """
    names = (tokenizer.convert_ids_to_tokens(list(response)) for response in responses)
    return [task.step_starts([name or "" for name in pieces]) for pieces in names]


def collate(rollouts: Sequence[Rollout], scores: Tensor) -> RolloutBatch:
    """Right-pad responses into one batch; responses to the same prompt share a group.

    Args:
        scores: [B] float32, what `vcppo.rl.rewards.verdict_scores` makes of the verdicts.
    """
    lengths = torch.tensor([len(r.generation.tokens) for r in rollouts])
    groups: dict[str, int] = {}
    return RolloutBatch(
        input_ids=_pad([torch.tensor(r.prompt_tokens + r.generation.tokens) for r in rollouts]),
        prompt_lengths=torch.tensor([len(r.prompt_tokens) for r in rollouts]),
        response_mask=torch.arange(int(lengths.max()))[None] < lengths[:, None],
        old_logprobs=_pad([torch.tensor(r.generation.logprobs, dtype=torch.float32) for r in rollouts]),
        scores=scores,
        correct=torch.tensor([r.verdict is Verdict.CORRECT for r in rollouts]),
        truncated=torch.tensor([r.generation.stop_reason == "length" for r in rollouts]),
        group=torch.tensor([groups.setdefault(r.prompt.name, len(groups)) for r in rollouts]),
    )


def _pad(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
