"""Resolve a settings file: a path, or the bare name of a recipe that comes with vcppo."""

import difflib
from pathlib import Path

from vcppo.errors import ConfigError
from vcppo.system.shipped import shipped

ENDINGS = (".toml", ".json")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with vcppo."""
    return sorted(file.stem for file in shipped("recipes").glob("*.toml"))


def settings_file(text: str) -> Path:
    """Return the file of a command's argument: a path as it is, a bare name among the recipes.

    Raises:
        ConfigError: there is no such file, or no such recipe.
    """
    path = Path(text)
    if path.exists():
        return path
    if path.name != text or text.endswith(ENDINGS):
        recipe = path.name.removesuffix(".toml")
        hint = f"; did you mean the recipe {recipe}?" if recipe in recipe_names() else ""
        raise ConfigError(f"{path}: no such file{hint}")
    if text in recipe_names():
        return shipped("recipes") / f"{text}.toml"
    close = difflib.get_close_matches(text, recipe_names(), n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(recipe_names())}"
    raise ConfigError(f"{text}: no such file and no recipe of that name; {hint}")
