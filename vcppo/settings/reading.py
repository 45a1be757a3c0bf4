"""Files of settings, TOML or JSON, as trees."""

import json
import tomllib
from pathlib import Path
from typing import Any

from vcppo.errors import ConfigError
from vcppo.settings.renamed import with_current_names
from vcppo.system.files import read_text


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict; a file that cannot be read is a ConfigError with its line."""
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def read_json_settings(path: Path) -> dict[str, Any]:
    """A record of settings, with present names; a file that cannot be read is a ConfigError."""
    try:
        tree = json.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected an object of settings, found {type(tree).__name__}")
    return with_current_names(tree)
