"""Base policy that RL starts from: how good it is, what it could reach, and what a critic of it can explain.

    python bench/base_policy.py runs/cache/cold-start/ADDRESS/policy [--out results/base-policy.csv]

Four numbers, each with a 95 % interval. Accuracy and length as it is, over training problems (bootstrap over
problems); accuracy where it may not answer before the last line, over the held-out problems (Wilson), which is what it
can reach by learning to think on; and the ceiling of explained variance: the share of the variance of returns that any
function of the state can explain, Var(V) / Var(R). Two returns R, R' of one state share its V and nothing else, so
Var(V) = Cov(R, R'): of each response's return, and that of one other continuation from a token of it drawn at random.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerFast

from vcppo.engines import make_engine
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.models.loading import load_policy, load_tokenizer
from vcppo.rl.rewards import verdict_score
from vcppo.rl.sampler import Sampler
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.engine import TorchEngineSettings
from vcppo.settings.reward import RewardSettings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.system.provenance import provenance
from vcppo.tasks import make_task
from vcppo.tasks.words import ANSWER
from vcppo.types import Rollout, Verdict

RESPONSES = 8192
STATES = 8  # of each response, drawn with replacement in proportion to its length
PATIENT_SAMPLES = 2  # responses to each held-out problem that must think to the end
RESAMPLES = 2000


class NoAnswerBeforeTheLastLine(LogitsProcessor):  # type: ignore[misc]
    """Makes `=` impossible until the last line's number has been written."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, lines: int, prompt_tokens: int) -> None:
        self.answer = tokenizer.convert_tokens_to_ids(ANSWER)
        self.last_line = tokenizer.convert_tokens_to_ids(f"#{lines}")
        self.prompt_tokens = prompt_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        unfinished = ~(input_ids[:, self.prompt_tokens :] == self.last_line).any(dim=1)
        scores[unfinished, self.answer] = -torch.inf
        return scores


class BasePolicy:
    """A checkpoint with its task and generator, at the default settings."""

    def __init__(self, checkpoint: Path) -> None:
        self.settings = RunSettings()
        self.task, self.tokenizer = make_task(self.settings.task), load_tokenizer(checkpoint)
        self.policy = load_policy(checkpoint)
        sampling = Sampling(self.settings.rollout.temperature, self.settings.rollout.top_p, self.task.max_tokens)
        engine = make_engine(TorchEngineSettings(), self.policy)
        self.sampler = Sampler(self.task, self.tokenizer, engine, sampling)

    def responses(self) -> list[Rollout]:
        """RESPONSES of them to training problems drawn with replacement."""
        return self.sampler.roll_out(
            self.task.training_prompts(RESPONSES, rng_for(0, "base policy", "prompts")),
            seed=seed_for(0, "base policy", "responses"),
        )

    def other_returns(self, rollouts: list[Rollout]) -> np.ndarray:
        """[responses, STATES] the return of another continuation from before a token of each response."""
        draw = rng_for(0, "base policy", "states")
        points, prefixes = [], []
        for row, rollout in enumerate(rollouts):
            tokens = rollout.generation.tokens
            for offset in torch.randint(len(tokens), (STATES,), generator=draw).tolist():
                points.append(
                    BranchPoint(row, len(rollout.prompt_tokens) + offset, self.sampler.sampling.max_tokens - offset)
                )
                prefixes.append(tokens[:offset])
        stems = [(*rollout.prompt_tokens, *rollout.generation.tokens) for rollout in rollouts]
        seed = seed_for(0, "base policy", "continuations")
        made = self.sampler.engine.branch(stems, points, self.sampler.sampling, seed=seed)
        continued = [(*prefix, *continuation.tokens) for prefix, continuation in zip(prefixes, made, strict=True)]
        judged = self.sampler.judge(continued, [rollouts[point.stem].prompt for point in points])
        returns = [verdict_score(judgement.verdict, self.settings.reward, judgement.credit) for judgement in judged]
        return np.array(returns).reshape(len(rollouts), STATES)

    def patient(self) -> tuple[int, int]:
        """Right responses, and all, where none may answer before the last line."""
        prompts = [prompt for prompt in self.task.held_out_prompts() for _ in range(PATIENT_SAMPLES)]
        ids = torch.tensor([self.tokenizer(prompt.text)["input_ids"] for prompt in prompts])
        assert isinstance(self.settings.task, DigitsTaskSettings)
        patient = NoAnswerBeforeTheLastLine(self.tokenizer, self.settings.task.chain_length, ids.shape[1])
        torch.manual_seed(0)
        responses = self.policy.generate(
            ids,
            do_sample=True,
            top_k=0,
            max_new_tokens=self.task.max_tokens,
            logits_processor=LogitsProcessorList([patient]),
        )
        texts = self.tokenizer.batch_decode(responses[:, ids.shape[1] :], skip_special_tokens=True)
        judged = self.task.judge(texts, prompts)
        return sum(judgement.verdict is Verdict.CORRECT for judgement in judged), len(prompts)


def ceiling(sums: np.ndarray) -> np.ndarray:
    """[..., 5] sums over tokens of 1, R, R', R R', R² -> [...] Cov(R, R') / Var(R).

    >>> ceiling(np.array([4.0, 0.0, 0.0, 2.0, 4.0]))  # of four tokens, R' is R in three and -R in one
    array(0.5)
    """
    n, first, other, product, square = np.moveaxis(sums, -1, 0)
    return np.asarray((product - first * other / n) / (square - first**2 / n))


def by_problem(rollouts: list[Rollout], others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[problems, 3] sums of responses, right ones and tokens; [problems, 5] the sums of `ceiling`."""
    rows = pd.DataFrame({
        "problem": [rollout.prompt.name for rollout in rollouts],
        "responses": 1.0,
        "right": [float(rollout.verdict is Verdict.CORRECT) for rollout in rollouts],
        "tokens": [float(len(rollout.generation.tokens)) for rollout in rollouts],
        "first": [verdict_score(rollout.verdict, RewardSettings()) for rollout in rollouts],
        "other": others.mean(axis=1),
    })  # fmt: skip
    weight = rows["tokens"]  # every token of a response is a state
    rows = rows.assign(
        n=weight, r=weight * rows["first"], s=weight * rows["other"], rs=weight * rows["first"] * rows["other"],
        rr=weight * rows["first"] ** 2,
    )  # fmt: skip
    totals = rows.groupby("problem", sort=True).sum()
    return totals[["responses", "right", "tokens"]].to_numpy(), totals[["n", "r", "s", "rs", "rr"]].to_numpy()


def measured(base: BasePolicy) -> pd.DataFrame:
    """Columns quantity, value, low, high, n (responses)."""
    rollouts = base.responses()
    plain, products = by_problem(rollouts, base.other_returns(rollouts))
    draws = np.random.default_rng(0).multinomial(len(plain), np.full(len(plain), 1 / len(plain)), size=RESAMPLES)
    rows = []
    for quantity, sums, statistic in (
        ("accuracy", plain, lambda total: total[..., 1] / total[..., 0]),
        ("length_tokens", plain, lambda total: total[..., 2] / total[..., 0]),
        ("explained_variance_ceiling", products, ceiling),
    ):
        low, high = np.quantile(statistic(draws @ sums), [0.025, 0.975])
        rows.append((quantity, float(statistic(sums.sum(axis=0))), low, high, len(rollouts)))
    right, patient = base.patient()
    wilson = binomtest(right, patient).proportion_ci(method="wilson")
    rows.append(("accuracy_made_to_think_to_the_end", right / patient, wilson.low, wilson.high, patient))
    assert all(math.isfinite(value) for row in rows for value in row[1:])
    return pd.DataFrame(rows, columns=["quantity", "value", "low", "high", "n"])


def main() -> None:
    """Print the numbers, and write them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of the cold-start policy")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    asked = parser.parse_args()
    found = measured(BasePolicy(asked.checkpoint))
    for row in found.itertuples():
        print(f"{row.quantity:34} {row.value:8.3f} [{row.low:.3f}, {row.high:.3f}], {row.n} responses")
    if asked.out is not None:
        found = found.assign(commit=provenance()["commit"], origin="measured")
        found.to_csv(asked.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
