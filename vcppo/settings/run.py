"""The settings of a run, whole: what is left unsaid is filled in, and what does not go together is refused."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationInfo, model_validator

from vcppo.settings.defaults import as_said, defaults_beside
from vcppo.settings.digests import settings_digest
from vcppo.settings.rules import meaningless
from vcppo.settings.sections import RunSections

UNFINISHED = "unfinished"  # in the context of a validation: settings that others will be added to need not fit yet


class RunSettings(RunSections):
    """One run, whole. Defaults are VC-PPO's; `method` puts another set of them beneath what is given explicitly."""

    @model_validator(mode="before")
    @classmethod
    def _with_defaults_beside(cls, given: Any) -> Any:
        """What is left unsaid and depends on other settings is written out, so that settings as recorded say it all."""
        if not isinstance(given, Mapping):
            return given
        tree = dict(given)
        for name, value in defaults_beside(given).items():
            section, leaf = name.split(".")
            said = as_said(tree.get(section, {}))
            if isinstance(said, Mapping):  # else a mistake that validation will tell
                tree[section] = {leaf: value, **said}
        return tree

    @model_validator(mode="after")
    def _parts_fit(self, info: ValidationInfo) -> Self:
        if info.context == UNFINISHED:
            return self
        if self.task.spread >= self.task.chain_length:
            raise ValueError(
                f"task.spread = {self.task.spread}: expected less than task.chain_length = {self.task.chain_length}"
            )
        for reason in meaningless(self):
            raise ValueError(reason)
        return self

    def digest(self) -> str:
        """12 hex digits that two runs share only if every setting is the same, their names (arm, method) aside."""
        return settings_digest(self.model_dump(mode="json"))
