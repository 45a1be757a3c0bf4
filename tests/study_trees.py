"""A study from what its file would say."""

from typing import Any

from vcppo.studies.study import Study, parse_study


def study(**parts: object) -> Study:
    return parse_study({"name": "x", "title": "a study", **parts}, "x.toml")


PPO_ARM: dict[str, Any] = {"name": "ppo", "set": {"method": "ppo"}}
