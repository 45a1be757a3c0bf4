"""Contents of the viewer of single responses: their tokens, and what critics and policy said of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcppo.errors import ShapeError

Numbers = Sequence[float] | NDArray[np.floating]


@dataclass(frozen=True)
class ViewedResponse:
    """One response. T tokens; C critics, those of the ViewerData it is in."""

    problem: str  # equal for responses to the same prompt
    prompt: str
    tokens: tuple[str, ...]  # [T] the text of each, end token included; any text, it runs nothing
    score: float
    values: tuple[Numbers, ...]  # C times [T]  V before each token is chosen; NaN where not finite or not known
    returns: Numbers  # [T] Monte-Carlo, gamma 1: the rewards to come
    logprobs: Numbers | None = None  # [T] nats, when sampled
    entropy: Numbers | None = None  # [T] nats, of the policy before each token
    truncated: bool | None = None  # cut at the length limit
    step: int | None = None  # of training
    line: int = 0  # where in its file, from 1


@dataclass(frozen=True)
class ViewerData:
    """The responses that the viewer offers, and how they were chosen."""

    critics: tuple[str, ...]
    responses: tuple[ViewedResponse, ...]
    lambdas: tuple[float, ...] = (0.0, 0.9, 0.95, 0.99, 1.0)  # marks of the slider; the page computes any between
    note: str = ""  # one line: which responses these are

    def __post_init__(self) -> None:
        for place, response in enumerate(self.responses):
            where = f"ViewerData.responses[{place}]"
            if len(response.values) != len(self.critics):
                raise ShapeError(f"{where}.values: {len(response.values)} critics, expected {len(self.critics)}")
            columns = {f"values[{i}]": column for i, column in enumerate(response.values)}
            columns |= {"returns": response.returns}
            columns |= {"logprobs": response.logprobs} if response.logprobs is not None else {}
            columns |= {"entropy": response.entropy} if response.entropy is not None else {}
            for name, column in columns.items():
                if len(column) != len(response.tokens):
                    raise ShapeError(
                        f"{where}.{name}: {len(column)} numbers, expected {len(response.tokens)}, one a token"
                    )
