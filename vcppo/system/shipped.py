"""Files that come with the package beside its code: studies, recipes and published numbers.

A wheel holds them below `vcppo/shipped`. In a checkout they are the folders at its top, where people look for them.
"""

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_A_CHECKOUT = {"ablations": "ablations", "recipes": "recipes", "paper": "results/paper"}


def shipped(folder: Literal["ablations", "recipes", "paper"]) -> Path:
    """Return the folder of these files."""
    installed = _PACKAGE / "shipped"
    return installed / folder if installed.is_dir() else _PACKAGE.parent / _IN_A_CHECKOUT[folder]
