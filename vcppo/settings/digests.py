"""Hashes of settings, by which runs and results are told apart."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vcppo.settings.renamed import with_hashed_names


def settings_digest(settings: Mapping[str, Any]) -> str:
    """12 hex digits of resolved settings as JSON, less the names they go by."""
    hashed = with_hashed_names(settings)
    return digest({name: value for name, value in hashed.items() if name not in ("arm", "method")})


def digest(value: Any) -> str:
    """12 hex digits of a JSON value's canonical text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
