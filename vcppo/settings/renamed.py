"""Settings that have had another name, or none: hashed as they were, so that what was computed before is found.

A setting that is renamed gets a line here. Files, flags and studies may go on naming the old one, which is then said;
records, digests and addresses of before stay what they were.

A setting that is new gets a line in added.py.
"""

from collections.abc import Mapping
from typing import Any

from vcppo.settings.added import without_added

RENAMED: Mapping[str, str] = {  # dotted names, new: old
    "reward_model.responses": "reward_model.answers",
    "reward_model.responses_per_prompt": "reward_model.answers_per_prompt",
    "evaluation.responses_at_once": "evaluation.answers_at_once",
    "record.truth_responses": "record.truth_answers",
    "pretrain.min_delta": "pretrain.tolerance",
}
CURRENT: Mapping[str, str] = {old: new for new, old in RENAMED.items()}


def current_name(name: str) -> str:
    """The present name of a setting.

    >>> current_name("record.truth_answers"), current_name("gae.gamma")
    ('record.truth_responses', 'gae.gamma')
    """
    return CURRENT.get(name, name)


def with_current_names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of settings with the present names; what is given under both names keeps the present one's value."""
    return _renamed(tree, CURRENT)


def with_hashed_names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of settings as digests and addresses have always had them: old names, and nothing of what came later."""
    return _renamed(without_added(tree), RENAMED)


def former_names(tree: Mapping[str, Any]) -> list[str]:
    """The settings that a tree calls by a former name."""
    sections = {section: branch for section, branch in tree.items() if isinstance(branch, Mapping)}
    return [old for old in CURRENT if old.split(".")[1] in sections.get(old.split(".")[0], {})]


def _renamed(tree: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    renamed = dict(tree)
    for before, after in names.items():
        (section, leaf), new_leaf = before.split("."), after.split(".")[1]
        branch = renamed.get(section)
        if isinstance(branch, Mapping) and leaf in branch:
            rest = {name: value for name, value in branch.items() if name != leaf}
            renamed[section] = {new_leaf: branch[leaf], **rest}
    return renamed
