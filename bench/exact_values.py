"""Exact values against what the policy samples: states against continuations, the gradient against responses.

    python bench/exact_values.py [--set task.name=digits ...] [--out runs] [--states 16] [--samples 4096]
        [--responses 20000]

Runs the cold start unless it is in the cache. Then:

- states: places of a few responses, spread over their steps; of each the exact chance of being judged correct, the
  share of `--samples` continuations that are, and how many standard errors (of the exact chance) lie between. A state
  that fails for sure by the exact values has none: the share alone is printed.
- gradient: of the mean score over 50 problems, exact, and the mean over `--responses` sampled ones of (score - that of
  a wrong one) * gradient of the response's log-probability, in 40 batches whose spread gives standard errors. Printed:
  both along the exact one, whole and by parameter; and the mean square of (difference / standard error) along 200
  directions drawn at random, about 1 if they agree. Also how many right responses had left every way that the task
  knows of: what exact values miss.

Exit code 1 if a state, or a part of the gradient, is more than 4 standard errors off.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from vcppo.engines import make_engine
from vcppo.engines.base import Sampling
from vcppo.models import forward
from vcppo.models.distributed import together
from vcppo.models.loading import load_policy, load_tokenizer
from vcppo.models.sharding import prepare
from vcppo.rl.continuations import mean_scores, merged
from vcppo.rl.exact_values import Response, exact_values, expected_score
from vcppo.rl.rewards import Shaping, verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.loading import load_settings
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.tasks import make_task
from vcppo.tasks.base import ExactTask
from vcppo.types import DecisionPath, Rollout, Verdict

STATES_OF_ONE, PROBLEMS, BATCHES, DIRECTIONS = 4, 50, 40, 200
WORST = 4.0  # standard errors


class Comparison:
    """A cold-start policy with its task and generator."""

    def __init__(self, settings: RunSettings, checkpoint: Path) -> None:
        self.settings, self.reward = settings, settings.reward
        self.policy = prepare(load_policy(checkpoint), settings.compute, settings.lora, seed=0)
        task = make_task(settings.task)
        if not isinstance(task, ExactTask):
            raise SystemExit(f"task.name = {settings.task.name}: expected a task that has exact values")
        self.task = task
        sampling = Sampling(settings.rollout.temperature, 1.0, settings.rollout.max_tokens or task.max_tokens)
        engine = make_engine(settings.engine, self.policy)
        self.sampler = Sampler(task, load_tokenizer(checkpoint), engine, sampling)

    def states(self, count: int, samples: int) -> bool:
        """Print exact and sampled chances of states; whether they agree."""
        prompts = self.sampler.task.training_prompts(96, rng_for(0, "exact values", "prompts"))
        rollouts = self.sampler.roll_out(prompts, seed=seed_for(0, "exact values", "responses"))
        began = time.perf_counter()
        exact = exact_values(
            self.policy,
            [Response.of(rollout) for rollout in rollouts],
            sampler=self.sampler,
            reward=self.reward,
            max_tokens=self.settings.micro_batch_tokens,
        )
        read = time.perf_counter()
        values = exact.values()
        done = time.perf_counter()
        print(
            f"{len(rollouts)} responses: {exact.read_tokens} tokens read in {read - began:.2f} s, "
            f"values made of them in {done - read:.2f} s"
        )
        starts = self.sampler.step_starts([rollout.generation.tokens for rollout in rollouts])
        spread = range(0, len(rollouts), max(len(rollouts) * STATES_OF_ONE // count, 1))
        places = [(row, start) for row in spread for start in merged(starts[row], STATES_OF_ONE)][:count]
        shaping, worst, squares = Shaping(self.reward, self.sampler.sampling.max_tokens), 0.0, []
        print("row token exact sampled standard_errors")
        for place in places:
            seed = seed_for(0, "exact values", *place)
            mean = mean_scores(rollouts, [place], samples, shaping, sampler=self.sampler, seed=seed).scores[0]
            chance, share = self._chance(float(values[place])), self._chance(mean)
            deviation = (chance * (1 - chance) / samples) ** 0.5
            off = (share - chance) / deviation if deviation > 1e-6 else float("nan")
            print(f"{place[0]:3} {place[1]:5} {chance:.4f} {share:.4f} {off:+.2f}", flush=True)
            if off == off:
                worst = max(worst, abs(off))
                squares.append(off**2)
        print(f"worst {worst:.2f}, mean square {sum(squares) / max(len(squares), 1):.2f} over {len(squares)} states")
        return worst <= WORST

    def _is_astray(self, rollout: Rollout) -> bool:
        """True where a response has left its way for good, before its end."""
        pieces = self.sampler.tokenizer.convert_ids_to_tokens(list(rollout.generation.tokens))
        path = self.task.decision_path(rollout.prompt, pieces)
        while isinstance(left_for := path.left_for(pieces), DecisionPath):
            path, pieces = left_for, pieces[path.written + 1 :]
        return path.written < len(pieces) and left_for is None

    def _chance(self, score: float) -> float:
        return (score - self.reward.wrong) / (self.reward.correct - self.reward.wrong)

    def gradient(self, responses: int) -> bool:
        """Print the exact gradient beside the sampled one; whether they agree."""
        prompts = self.sampler.task.training_prompts(PROBLEMS, rng_for(0, "exact values", "problems"))
        named = [(name, p) for name, p in self.policy.named_parameters() if p.requires_grad]
        parameters, limit = [p for _, p in named], self.settings.micro_batch_tokens
        score = expected_score(self.policy, prompts, sampler=self.sampler, reward=self.reward, max_tokens=limit)
        exact = [g.flatten() for g in torch.autograd.grad(score, parameters)]
        sampled, scores, right, astray = [], [], 0, 0
        each = max(responses // BATCHES // PROBLEMS, 1)
        for number in range(BATCHES):
            rollouts = self.sampler.roll_out(prompts * each, seed=seed_for(0, "exact values", "gradient", number))
            batch = collate(rollouts, verdict_scores(rollouts, self.reward))
            scores.append(float(batch.scores.mean()))
            correct = [rollout for rollout in rollouts if rollout.verdict is Verdict.CORRECT]
            right, astray = right + len(correct), astray + sum(map(self._is_astray, correct))
            weights = (batch.scores - self.reward.wrong) / len(rollouts)
            total = torch.zeros(sum(p.numel() for p in parameters))
            for rows in forward.split_rows(batch.total_lengths, limit, (weights != 0).nonzero()[:, 0]):
                part = batch.take(rows)
                logprobs = forward.response_logprobs(self.policy, part, self.sampler.sampling.temperature)[0]
                loss = (weights[rows] * logprobs.sum(dim=1)).sum()
                total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
            sampled.append(total)
        mean, error = _mean_and_error(torch.tensor(scores)[:, None])
        print(f"mean score: exact {score.item():.4f}, sampled {float(mean):.4f} +- {float(error):.4f}")
        print(f"of {right} right responses {astray} had left every way that the task knows of")
        directions, names = [torch.cat(exact)], ["all"]
        ends = torch.tensor([len(g) for g in exact]).cumsum(0).tolist()
        for (name, _), own, end in zip(named, exact, ends, strict=True):
            in_place = torch.zeros_like(directions[0])
            in_place[end - len(own) : end] = own
            directions.append(in_place)
            names.append(name)
        rng = rng_for(0, "exact values", "directions")
        drawn = [torch.randn(directions[0].shape, generator=rng) for _ in range(DIRECTIONS)]
        basis = torch.stack([d / d.norm().clamp(min=1e-30) for d in (*directions, *drawn)])
        mean, error = _mean_and_error(torch.stack(sampled) @ basis.T)
        off = (mean - basis @ directions[0]) / error.clamp(min=1e-30)
        print("direction exact sampled standard_error standard_errors_off")
        for i, name in enumerate(names):
            print(f"{name} {float(basis[i] @ directions[0]):.5f} {mean[i]:.5f} {error[i]:.5f} {off[i]:+.2f}")
        at_random = off[len(names) :]
        print(
            f"mean square along {DIRECTIONS} directions: {float(at_random.square().mean()):.2f}, worst of the parts "
            f"{off[: len(names)].abs().max():.2f}"
        )
        return float(off[: len(names)].abs().max()) <= WORST


def _mean_and_error(x: Tensor) -> tuple[Tensor, Tensor]:
    """Over the first axis, and the standard error."""
    return x.mean(dim=0), x.std(dim=0) / len(x) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--responses", type=int, default=20000)
    chosen = parser.parse_args()
    settings = load_settings(assignments=chosen.assignments)
    with together():
        folder = run_stages(settings, chosen.out, until="cold-start")["cold-start"].folder
        comparison = Comparison(settings, folder.path / "policy")
        print(f"{settings.task.name}, cold start {folder.path.name}")
        agree = [comparison.states(chosen.states, chosen.samples)] if chosen.states else []
        agree += [comparison.gradient(chosen.responses)] if chosen.responses else []
    sys.exit(0 if all(agree) else 1)


if __name__ == "__main__":
    main()
