"""How good the cold-start policy is as it is, and when it may not answer before the last line.

python bench/base_policy.py runs/cache/cold-start/ADDRESS/policy
The first number is what RL starts from, the second what it can reach by learning to think on. Intervals are Wilson's.
"""

import sys
from pathlib import Path

import torch
from scipy.stats import binomtest
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast

from vcppo.config import TaskSettings
from vcppo.models import load_policy, load_tokenizer
from vcppo.tasks import make_task
from vcppo.tasks.digits import ANSWER
from vcppo.types import Verdict

SAMPLES = 2  # answers to each held-out problem


class NoAnswerBeforeTheLastLine(LogitsProcessor):
    """Makes `=` impossible until the last line's number has been written."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, lines: int, prompt_tokens: int) -> None:
        self.answer = tokenizer.convert_tokens_to_ids(ANSWER)
        self.last_line = tokenizer.convert_tokens_to_ids(f"#{lines}")
        self.prompt_tokens = prompt_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        unfinished = ~(input_ids[:, self.prompt_tokens :] == self.last_line).any(dim=1)
        scores[unfinished, self.answer] = -torch.inf
        return scores


def main(checkpoint: Path) -> None:
    """Print both accuracies."""
    settings = TaskSettings()
    task, tokenizer, policy = make_task(settings), load_tokenizer(checkpoint), load_policy(checkpoint)
    prompts = [prompt for prompt in task.held_out_prompts() for _ in range(SAMPLES)]
    ids = torch.tensor([tokenizer(prompt.text)["input_ids"] for prompt in prompts])
    patient = NoAnswerBeforeTheLastLine(tokenizer, settings.chain_length, ids.shape[1])
    for name, processors in (("as it is", []), ("made to think to the end", [patient])):
        torch.manual_seed(0)
        answers = policy.generate(
            ids,
            do_sample=True,
            top_k=0,
            max_new_tokens=task.max_tokens,
            logits_processor=LogitsProcessorList(processors),
        )
        texts = tokenizer.batch_decode(answers[:, ids.shape[1] :], skip_special_tokens=True)
        right = sum(task.verify(t, p) is Verdict.CORRECT for t, p in zip(texts, prompts, strict=True))
        low, high = binomtest(right, len(prompts)).proportion_ci(method="wilson")
        print(f"{name:26} {right} of {len(prompts)} right: {right / len(prompts):.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
