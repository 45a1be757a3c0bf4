"""A function that settings choose by name, without importing it: settings load no torch."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NamedFunction:
    """Fields that the records of estimators and of losses share."""

    title: str
    source: str  # paper, or the code at a commit
    function: str  # module:name

    @property
    def compute(self) -> Callable[..., Any]:
        """The function, imported now."""
        function: Callable[..., Any] = pkgutil.resolve_name(self.function)
        return function
