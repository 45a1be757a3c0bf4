"""A world small enough to enumerate: what gradient each method follows, exactly, against the true policy gradient.

A binary tree of depth 4 with a leaf of 0 or 1 at each end, one of them at depth 2, and a tabular softmax policy. An
response is a path of 4 tokens (or 2) from the root; values, action values and the gradient of the expected reward are
sums over the 13 paths. Expectations over responses, groups of responses and sampled continuations are sums as well, so
nothing here is drawn unless its name says so. An advantage is right if sum_paths p * sum_t A_t * grad log pi(a_t|s_t)
is the policy gradient, or the multiple of it or the distance from it that the method is known to have.
"""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vcppo.maths.advantages import (
    gae,
    group_advantages,
    length_adaptive_lambda,
    monte_carlo_returns,
    q_advantages,
    released_dvpo_advantages,
    rloo_advantages,
    segment_advantages,
)
from vcppo.maths.selection import Keep, prune
from vcppo.maths.shaping import LogRatioKind, log_ratio_rewards

close = torch.testing.assert_close
LAMBDAS = [0.0, 0.5, 0.95, 1.0]


@dataclass(frozen=True)
class Tree:
    """N paths of at most T tokens; node 1 is the root, node n has the children 2n and 2n + 1."""

    nodes: Tensor  # [N, T] int64, the state before each token, 0 after the path's end
    actions: Tensor  # [N, T] int64, 0 or 1
    response_mask: Tensor  # [N, T] bool
    scores: Tensor  # [N] float64, of the leaf

    @property
    def rewards(self) -> Tensor:
        """[N, T] the leaf's score on the last token."""
        last = self.response_mask.sum(1, keepdim=True) - 1
        return torch.zeros(self.nodes.shape, dtype=torch.float64).scatter(1, last, self.scores[:, None])

    def logprobs(self, logits: Tensor) -> Tensor:
        """[N, T] log pi of each token, 0 where masked. logits: [nodes, 2]."""
        table = logits.log_softmax(1)
        return torch.where(self.response_mask, table[self.nodes, self.actions], 0.0)

    def probabilities(self, logits: Tensor) -> Tensor:
        """[N] how likely each path is."""
        return self.logprobs(logits).sum(1).exp()

    def values(self, logits: Tensor) -> Tensor:
        """[nodes] exact V of every node: the mean score of the paths through it, by how likely they are."""
        likely, through = self.probabilities(logits), torch.zeros(2, len(logits), dtype=torch.float64)
        for t in range(self.nodes.shape[1]):
            through = through.index_add(1, self.nodes[:, t], torch.stack([likely * self.scores, likely]))
        return through[0] / through[1].clamp(min=1e-300)

    def policy_gradient(self, logits: Tensor, totals: Tensor | None = None) -> Tensor:
        """[nodes, 2] gradient of the expected score (or of any total [N] that does not depend on the policy)."""
        free = logits.clone().requires_grad_()
        expected = (self.probabilities(free) * (self.scores if totals is None else totals)).sum()
        (gradient,) = torch.autograd.grad(expected, free)
        return gradient

    def expected_gradient(self, logits: Tensor, advantages: Tensor) -> Tensor:
        """[nodes, 2] what an update with these advantages [N, T] follows, in expectation over the paths."""
        free = logits.clone().requires_grad_()
        surrogate = (self.probabilities(logits)[:, None] * advantages * self.logprobs(free)).sum()
        (gradient,) = torch.autograd.grad(surrogate, free)
        return gradient


def grown(leaves: dict[tuple[int, ...], float]) -> Tree:
    """A tree from its paths of actions and their scores."""
    width = max(map(len, leaves))
    nodes, actions = torch.zeros(2, len(leaves), width, dtype=torch.int64)
    for row, path in enumerate(leaves):
        node = 1
        for t, action in enumerate(path):
            nodes[row, t], actions[row, t] = node, action
            node = 2 * node + action
    return Tree(nodes, actions, nodes > 0, torch.tensor(list(leaves.values()), dtype=torch.float64))


def full(depth: int, scores: list[float]) -> Tree:
    return grown(dict(zip(itertools.product((0, 1), repeat=depth), scores, strict=True)))


SIXTEEN = [0.0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0]
EVEN = full(4, SIXTEEN)
PATHS = dict(zip(itertools.product((0, 1), repeat=4), SIXTEEN, strict=True))
TREE = grown({path: score for path, score in PATHS.items() if path[:2] != (1, 0)} | {(1, 0): 1.0})


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOGITS = drawn(16, 2, seed=0)
GRADIENT = TREE.policy_gradient(LOGITS)
EXACT = TREE.values(LOGITS)[TREE.nodes]
ON = TREE.response_mask


def follows(advantages: Tensor) -> Tensor:
    return TREE.expected_gradient(LOGITS, advantages)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_the_world_is_what_it_says() -> None:
    """13 paths, one of 2 tokens, probabilities that add up; V of a node is the mean of its children's."""
    assert (len(TREE.scores), ON.sum(1).unique().tolist()) == (13, [2, 4])
    assert float(TREE.probabilities(LOGITS).sum()) == pytest.approx(1)
    values, chance = TREE.values(LOGITS), LOGITS.softmax(1)
    assert float(values[1]) == pytest.approx(float((TREE.probabilities(LOGITS) * TREE.scores).sum()))
    assert float(values[2]) == pytest.approx(float(chance[2] @ values[[4, 5]]))
    assert float(values[3]) == pytest.approx(float(chance[3, 0] * 1.0 + chance[3, 1] * values[7]))  # node 6 is a leaf
    assert float(GRADIENT.norm()) > 0.1


def test_the_return_is_right() -> None:
    close(follows(monte_carlo_returns(TREE.rewards, ON, gamma=1.0)), GRADIENT)


def test_at_lambda_one_any_critic_is_right() -> None:
    close(follows(gae(TREE.rewards, drawn(16, seed=1)[TREE.nodes], ON, gamma=1.0, gae_lambda=1.0)), GRADIENT)


@pytest.mark.parametrize("gae_lambda", LAMBDAS)
def test_with_the_exact_critic_any_lambda_is_right(gae_lambda: float) -> None:
    close(follows(gae(TREE.rewards, EXACT, ON, gamma=1.0, gae_lambda=gae_lambda)), GRADIENT)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95])
def test_below_lambda_one_a_wrong_critic_is_wrong(gae_lambda: float) -> None:
    """By (1 - lambda) sum_l lambda^l E[e(s_{t+1+l})], e its error: here a critic that is too high by the depth."""
    error = torch.arange(4.0, dtype=torch.float64).expand(13, 4)
    found = follows(gae(TREE.rewards, EXACT + error, ON, gamma=1.0, gae_lambda=gae_lambda))
    assert distance(found, GRADIENT) > 0.05
    ahead = gae(0 * error, error, ON, gamma=1.0, gae_lambda=gae_lambda)
    close(found - GRADIENT, follows(ahead))


def test_a_constant_error_of_the_critic_biases_one_step_errors_only_where_the_length_is_chosen() -> None:
    """They lose the constant at the last token: harmless where both actions are the last, or neither is."""
    wrong = gae(TREE.rewards, EXACT + 5, ON, gamma=1.0, gae_lambda=0.0)
    bias = follows(wrong) - GRADIENT
    found = (bias.abs().sum(1) > 1e-12).nonzero().flatten().tolist()
    assert found == [3]  # its children alone are a leaf and a node with more to come


def test_dvpos_two_stated_forms_are_right_with_the_exact_critic() -> None:
    """Q as it stands, without baseline, and centred: Q - V is the one-step error."""
    q = q_advantages(TREE.rewards, EXACT, ON, gamma=1.0)
    close(follows(q), GRADIENT)
    close(torch.where(ON, q - EXACT, 0.0), gae(TREE.rewards, EXACT, ON, gamma=1.0, gae_lambda=0.0))


def test_a_lambda_that_knows_the_length_is_wrong_even_with_the_exact_critic() -> None:
    """VAPO's lambda depends on tokens still to come: what it lets through is weighed by how the response will end."""
    advantages = [
        gae(t.rewards, t.values(LOGITS)[t.nodes], t.response_mask, gamma=1.0, gae_lambda=lambdas)
        for t in (TREE, EVEN)
        for lambdas in [length_adaptive_lambda(t.response_mask, alpha=0.4).double()]  # 0 at 2 tokens, .375 at 4
    ]
    assert distance(follows(advantages[0]), GRADIENT) > 0.01
    close(EVEN.expected_gradient(LOGITS, advantages[1]), EVEN.policy_gradient(LOGITS))


SEGMENTATIONS = {"token": [0, 1, 2, 3], "pair": [0, 0, 1, 1], "uneven": [0, 1, 1, 1], "answer": [0, 0, 0, 0]}


def sampled_values(segments: list[int], k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every way in which the K-sample means at the steps' states can fall out, for every path.

    Returns:
        [N * ways] row, [N * ways] its probability given the path, [N * ways, J] the means.
    """
    first = [segments.index(j) for j in range(segments[-1] + 1)]
    v = torch.where(ON, EXACT, 0.0)[:, first]  # [N, J]; a step beyond the path's end always draws 0
    ways = torch.tensor(list(itertools.product(range(k + 1), repeat=len(first))), dtype=torch.float64)
    ways_to = torch.tensor([math.comb(k, h) for h in range(k + 1)], dtype=torch.float64)[ways.long()]
    hits = ways[None]
    chance = (ways_to * v[:, None] ** hits * (1 - v[:, None]) ** (k - hits)).prod(-1)  # [N, ways]
    rows = torch.arange(len(v)).repeat_interleave(len(ways))
    return rows, chance.flatten(), (ways / k).repeat(len(v), 1)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("segments", SEGMENTATIONS.values(), ids=SEGMENTATIONS)
def test_vineppo_is_right_for_any_number_of_samples(segments: list[int], k: int) -> None:
    """And any way of cutting responses into steps, from one token a step to one step a response: noise, but no bias."""
    rows, chance, means = sampled_values(segments, k)
    step = torch.tensor(segments).expand(len(rows), 4)
    advantages = segment_advantages(TREE.rewards[rows], means, step, ON[rows])
    expected = torch.zeros(13, 4, dtype=torch.float64).index_add(0, rows, chance[:, None] * advantages)
    close(follows(expected), GRADIENT)


@pytest.mark.parametrize("k", [1, 3])
def test_the_noise_of_a_vineppo_step_is_that_of_both_its_values(k: int) -> None:
    """Var A_j = [v (1 - v) + v' (1 - v')] / K, and of the last step the squared error of one mean, v (1 - v) / K."""
    rows, chance, means = sampled_values(SEGMENTATIONS["token"], k)
    found = segment_advantages(TREE.rewards[rows], means, torch.arange(4).expand(len(rows), 4), ON[rows])
    moments = [torch.zeros(13, 4, dtype=torch.float64).index_add(0, rows, chance[:, None] * found**n) for n in (1, 2)]
    noise = torch.where(ON, EXACT * (1 - EXACT), 0.0) / k
    expected = torch.where(ON, noise + torch.nn.functional.pad(noise[:, 1:], (0, 1)), 0.0)
    close(moments[1] - moments[0] ** 2, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_is_right_and_the_group_mean_shrinks_the_gradient(size: int) -> None:
    """Over all groups of `size` responses: RLOO follows the gradient, Dr. GRPO (size - 1) / size of it."""
    rows = torch.tensor(list(itertools.product(range(13), repeat=size))).flatten()
    group = torch.arange(len(rows)) // size
    chance = TREE.probabilities(LOGITS)[rows].view(-1, size).prod(1)
    weight = chance.repeat_interleave(size)[:, None] / size / TREE.probabilities(LOGITS)[rows, None]

    def mean_gradient(advantages: Tensor) -> Tensor:
        return follows(torch.zeros(13, 4, dtype=torch.float64).index_add(0, rows, weight * advantages))

    scores, on = TREE.scores[rows], ON[rows]
    close(mean_gradient(rloo_advantages(scores, group, on)), GRADIENT)
    close(mean_gradient(group_advantages(scores, group, on, scale=False)), (size - 1) / size * GRADIENT)
    # One right and one wrong have std sqrt(1/2), one and two have sqrt(1/3): the same for all groups that have any.
    std = {2: 0.5**0.5, 3: (1 / 3) ** 0.5}[size]
    close(mean_gradient(group_advantages(scores, group, on, scale=True)), (size - 1) / size / (std + 1e-6) * GRADIENT)


DPO, REF = TREE.logprobs(drawn(16, 2, seed=2)), TREE.logprobs(drawn(16, 2, seed=3))


def shaped(kind: LogRatioKind, clip: float | None = None) -> Tensor:
    segments = torch.tensor([0, 0, 1, 1]).expand(13, 4)
    return log_ratio_rewards(DPO, REF, segments, ON, kind=kind, weight=0.5, clip=clip)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_rs_ppo_follows_the_unshaped_gradient(clip: float | None) -> None:
    rewards, critic = TREE.rewards + shaped("rs-ppo", clip), drawn(16, seed=1)[TREE.nodes]
    close(follows(gae(rewards, critic, ON, gamma=1.0, gae_lambda=1.0)), GRADIENT)
    assert float(shaped("rs-ppo", clip).abs().sum()) > 1  # there is something to undo


@pytest.mark.parametrize("kind", ["rto", "semi-rto", "ddpo"])
def test_token_rewards_follow_the_gradient_of_the_score_and_the_log_ratio(kind: LogRatioKind) -> None:
    """Wherever the log-ratio is placed; not the gradient of the score."""
    found = follows(gae(TREE.rewards + shaped(kind), EXACT, ON, gamma=1.0, gae_lambda=1.0))
    close(found, TREE.policy_gradient(LOGITS, TREE.scores + 0.5 * (DPO - REF).sum(1)))
    assert distance(found, GRADIENT) > 0.1


@pytest.mark.parametrize("gae_lambda", LAMBDAS)
def test_rs_ppo_is_potential_based_shaping(gae_lambda: float) -> None:
    """A critic lower by Phi(s_t) = 0.5 * (log-ratio before t) gives the unshaped advantages, at every lambda."""
    ratios, critic = 0.5 * (DPO - REF), drawn(16, seed=1)[TREE.nodes]
    potential = ratios.cumsum(1) - ratios
    found = gae(TREE.rewards + shaped("rs-ppo"), critic - potential, ON, gamma=1.0, gae_lambda=gae_lambda)
    close(found, gae(TREE.rewards, critic, ON, gamma=1.0, gae_lambda=gae_lambda))


def test_tilting_by_the_log_ratio_is_the_best_policy_with_a_kl_penalty() -> None:
    """pi*(y) ~ pi_ref (pi_dpo / pi_ref)^(b1 / b2) exp(R / b2): no advantage is left at R + b1 log-ratio - b2 k1."""
    b1, b2 = 0.5, 0.8
    weights = (REF.sum(1) + (b1 * (DPO - REF).sum(1) + TREE.scores) / b2).exp()
    mass = torch.zeros(32, dtype=torch.float64)
    for t in range(4):
        children = torch.where(ON[:, t], 2 * TREE.nodes[:, t] + TREE.actions[:, t], 0)
        mass = mass.index_add(0, children, weights)
    best = torch.stack([mass[0::2], mass[1::2]], 1)  # [16, 2], row n: the mass below node n's two children
    logits = torch.where(best > 0, best, 1.0).log()
    rewards = TREE.rewards + shaped("rto") - b2 * (TREE.logprobs(logits) - REF)
    returns = monte_carlo_returns(rewards, ON, gamma=1.0)
    close(returns[:, 0], returns[:1, 0].expand(13))
    close(TREE.expected_gradient(logits, returns), torch.zeros_like(logits), rtol=0, atol=1e-12)


def test_released_dvpo_at_lambda_one_follows_nothing_but_its_whitening() -> None:
    """-V(s_t) is the same for both actions: no gradient. Whitened by the response, it depends on where that leads."""
    none = torch.zeros_like(EXACT)
    close(follows(gae(none, EXACT, ON, gamma=1.0, gae_lambda=1.0)), none.new_zeros(16, 2), rtol=0, atol=1e-15)
    found = follows(released_dvpo_advantages(EXACT, none, ON, gae_lambda=1.0))
    assert float(found.norm()) > 0.1
    assert distance(found, GRADIENT) > 0.5


@pytest.mark.parametrize("gae_lambda", LAMBDAS)
def test_released_dvpo_less_its_whitening_lacks_the_reward_only(gae_lambda: float) -> None:
    """A * std + mean * lambda^(tokens to come) undoes the whitening; what is left is the gradient without the score.

    At lambda 0, of the exact critic: the policy gradient above the last choice, nothing there.
    """
    values = EVEN.values(LOGITS)[EVEN.nodes]
    on, none = EVEN.response_mask, torch.zeros_like(values)
    to_come = torch.tensor([3, 2, 1, 0])
    found = released_dvpo_advantages(values, none, on, gae_lambda=gae_lambda)
    mean, std = values.mean(1, keepdim=True), (values.var(1, keepdim=True) + 1e-8).sqrt()
    raw = EVEN.expected_gradient(LOGITS, std * found - mean * gae_lambda**to_come)
    exact = EVEN.policy_gradient(LOGITS)
    reward_alone = EVEN.expected_gradient(LOGITS, gae(EVEN.rewards, none, on, gamma=1.0, gae_lambda=gae_lambda))
    close(raw, exact - reward_alone)
    if gae_lambda == 0:
        close(raw[1:8], exact[1:8])
        close(raw[8:], torch.zeros(8, 2, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("refreshed", "reached"), [(False, 0.5), (True, 0.9)])
def test_a_frozen_critic_improves_by_one_step_only(refreshed: bool, reached: float) -> None:
    """Left leaves .5 and .5, right ones .9 and 0: the uniform policy values left .5, right .45.

    Frozen, that decides for the left for ever; estimated again, the right is seen to be worth .9.
    """
    tree, logits = full(2, [0.5, 0.5, 0.9, 0.0]), torch.zeros(4, 2, dtype=torch.float64)
    values = tree.values(logits)
    for _ in range(300):
        advantages = gae(tree.rewards, values[tree.nodes], tree.response_mask, gamma=1.0, gae_lambda=0.0)
        logits = logits + 20 * tree.expected_gradient(logits, advantages)
        values = tree.values(logits) if refreshed else values
    assert float(tree.values(logits)[1]) == pytest.approx(reached, abs=0.01)


KEPT = [8, 4, 2, 1]
COSINES = {  # by how many of 16 responses are correct: of the pruned with the full gradient, at 8, 4, 2 and 1 kept
    1: [0.983, 0.975, 0.970, 0.968],
    2: [0.964, 0.945, 0.935, 0.661],
    4: [0.913, 0.866, 0.612, 0.433],
    8: [0.707, 0.500, 0.354, 0.250],
}


@pytest.mark.parametrize("correct", COSINES)
@pytest.mark.parametrize("column", range(4))
def test_pruning_turns_the_gradient_by_what_it_drops(correct: int, column: int) -> None:
    """With orthogonal gradients of the responses: cos = sqrt(sum kept A^2 / sum A^2), length 16 / kept of that."""
    kept, cosine = KEPT[column], COSINES[correct][column]
    one, rng = torch.zeros(16, dtype=torch.long), torch.Generator()
    scores = (torch.arange(16) % 8 * 2 + torch.arange(16) // 8 < correct).double()
    a = group_advantages(scores, one, torch.ones(16, 1, dtype=torch.bool), scale=True)[:, 0]
    rows = prune(a, one, rate=1 - kept / 16, scope="question", keep="largest", rng=rng)
    whole, pruned = torch.eye(16) @ a.float() / 16, torch.eye(16)[:, rows] @ a[rows].float() / kept
    assert float(whole @ pruned / whole.norm() / pruned.norm()) == pytest.approx(cosine, abs=0.0006)
    assert float(pruned.norm() / whole.norm()) == pytest.approx(16 / kept * cosine, rel=0.002)


def drawn_cosines(rate_correct: float) -> dict[Keep, float]:
    """64 groups of 16 responses, 2 kept; gradients of the responses drawn in 4096 dimensions."""
    rng = torch.Generator().manual_seed(0)
    group = torch.arange(1024) // 16
    scores = (torch.rand(1024, generator=rng) < rate_correct).float()
    a = group_advantages(scores, group, torch.ones(1024, 1, dtype=torch.bool), scale=True)[:, 0]
    vectors = torch.randn(1024, 4096, generator=rng)
    whole = a @ vectors
    found: dict[Keep, float] = {}
    for keep in ("largest", "random", "smallest"):
        rows = prune(a, group, rate=0.875, scope="question", keep=keep, rng=rng)
        found[keep] = float(torch.cosine_similarity(whole, a[rows] @ vectors[rows], dim=0))
    return found


@pytest.mark.parametrize(
    ("rate_correct", "expected"), [(0.1, [0.92, 0.39, 0.14]), (0.2, [0.77, 0.35, 0.19]), (0.5, [0.43, 0.37, 0.29])]
)
def test_largest_beats_random_beats_smallest_on_a_draw(rate_correct: float, expected: list[float]) -> None:
    """The gap closes towards half correct, where all |A| are alike."""
    largest, random, smallest = drawn_cosines(rate_correct).values()
    assert largest > random > smallest
    assert [largest, random, smallest] == pytest.approx(expected, abs=0.08)  # another draw of 64 groups
