"""Log-probabilities in blocks are those of the whole, with their gradients, and no block's logits outlive it."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vcppo.maths.logprobs import chosen_logprobs

ALL = 10**9


def inputs(
    count: int = 7, width: int = 5, vocabulary: int = 11, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, width, generator=rng, dtype=dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=rng, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (count,), generator=rng)


def at_once(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """By the definition."""
    logprobs = torch.log_softmax(hidden @ weight.T / temperature, dim=-1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(dim=-1)


@pytest.mark.parametrize("cells", [1, 11, 25, 40, ALL])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_blocks_give_the_definition_and_its_gradient(cells: int, temperature: float) -> None:
    hidden, weight, targets = inputs()
    slopes = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64), torch.linspace(0.5, -0.3, 7, dtype=torch.float64)
    found = chosen_logprobs(hidden, weight, targets, temperature=temperature, cells=cells)
    wanted = at_once(hidden, weight, targets, temperature)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    gradients = [torch.autograd.grad(pair, (hidden, weight), slopes, retain_graph=True) for pair in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("cells", [11, 40, ALL])
def test_a_bias_of_the_head_is_in_the_definition_and_its_gradient(cells: int) -> None:
    """As one more input, always 1, whose weights it is."""
    hidden, weight, targets = inputs()
    bias = torch.randn(len(weight), generator=torch.Generator().manual_seed(9), dtype=torch.float64).requires_grad_()
    found = chosen_logprobs(hidden, weight, targets, temperature=0.7, cells=cells, bias=bias)
    one = torch.ones(len(hidden), 1, dtype=torch.float64)
    wanted = at_once(torch.cat([hidden, one], dim=1), torch.cat([weight, bias[:, None]], dim=1), targets, 0.7)
    slopes = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64), torch.linspace(0.5, -0.3, 7, dtype=torch.float64)
    gradients = [torch.autograd.grad(pair, (hidden, weight, bias), slopes) for pair in (found, wanted)]
    for one_part, other in zip((*found, *gradients[0]), (*wanted, *gradients[1]), strict=True):
        torch.testing.assert_close(one_part, other)


def test_two_equal_logits_have_the_entropy_of_a_coin() -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[3.0], [3.0]])
    logprobs, entropy = chosen_logprobs(hidden, weight, torch.tensor([1]), temperature=1.0, cells=1)
    torch.testing.assert_close(logprobs, torch.tensor([0.5]).log())
    torch.testing.assert_close(entropy, torch.tensor([2.0]).log())


@pytest.mark.parametrize("which", [0, 1])
def test_either_output_may_be_the_only_one_with_a_gradient(which: int) -> None:
    hidden, weight, targets = inputs()
    found = chosen_logprobs(hidden, weight, targets, temperature=1.0, cells=20)[which]
    wanted = at_once(hidden, weight, targets, 1.0)[which]
    for one, other in zip(
        torch.autograd.grad(found.sum(), (hidden, weight)),
        torch.autograd.grad(wanted.sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_needs_no_gradient_gets_none(frozen: int) -> None:
    parts = list(inputs())
    parts[frozen] = parts[frozen].detach()
    chosen_logprobs(*parts, temperature=1.0, cells=20)[0].sum().backward()
    assert parts[frozen].grad is None
    assert parts[1 - frozen].grad is not None


def test_nothing_to_read_is_nothing() -> None:
    hidden, weight, targets = inputs()
    logprobs, entropy = chosen_logprobs(hidden[:0], weight, targets[:0], temperature=1.0, cells=20)
    assert logprobs.shape == entropy.shape == (0,)
    (logprobs.sum() + entropy.sum()).backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_bfloat16_inputs_give_float32_results_and_bfloat16_gradients() -> None:
    hidden, weight, targets = (x.detach().bfloat16().requires_grad_() if x.is_floating_point() else x for x in inputs())
    logprobs, entropy = chosen_logprobs(hidden, weight, targets, temperature=1.0, cells=20)
    assert logprobs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logprobs, at_once(hidden.float(), weight.float(), targets, 1.0)[0], atol=0.03, rtol=0)
    logprobs.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


class Largest(TorchDispatchMode):
    """Sees the largest tensor that any operation makes."""

    cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(made):
            if isinstance(x, Tensor):
                self.cells = max(self.cells, x.numel())
        return made


def test_no_tensor_of_all_logits_is_ever_made() -> None:
    """1,000 places and 2,000 words: 2,000,000 logits, of which a block has 20,000; the weights have 8,000."""
    hidden, weight, targets = inputs(count=1000, width=4, vocabulary=2000, dtype=torch.float32)
    with Largest() as seen:  # type: ignore[no-untyped-call]
        logprobs, entropy = chosen_logprobs(hidden, weight, targets, temperature=1.0, cells=20_000)
        (logprobs.sum() + entropy.sum()).backward()
    assert seen.cells == 20_000
