"""The settings of a run, whole: what is left unsaid is filled in, and what does not go together is refused."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import (
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from vcppo.settings.added import with_added
from vcppo.settings.defaults import defaults_beside, set_values
from vcppo.settings.digests import settings_digest
from vcppo.settings.kinds import KINDS, flat_layout, foreign, is_whole, not_by_default, with_kinds, without
from vcppo.settings.renamed import with_current_names
from vcppo.settings.rules import meaningless
from vcppo.settings.sections import RunSections
from vcppo.settings.task import DigitsTaskSettings

UNFINISHED = "unfinished"  # in the context of a validation: settings that others will be added to need not fit yet


class RunSettings(RunSections):
    """One run, whole. Defaults are VC-PPO's; `method` puts another set of them beneath what is given explicitly."""

    # What was said of other kinds than those chosen, as JSON by section; it changes nothing but the record and the
    # addresses, which have always known it: an arm without KL of a method with one, and a plain run, are two.
    _of_other_kinds: Mapping[str, Mapping[str, Any]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _of_a_record(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Accept settings of other kinds in a whole record, which has those of all kinds."""
        if not isinstance(given, Mapping):
            return handler(given)
        given = with_current_names(given)
        if not is_whole(given):
            return handler(given)
        given = with_added(given)
        left_out = list(foreign(given))
        return handler(without(given, left_out)).beside(not_by_default(left_out))

    @model_validator(mode="before")
    @classmethod
    def _with_defaults_beside(cls, given: Any) -> Any:
        """Write out defaults that other settings decide, so that settings as recorded are complete."""
        if not isinstance(given, Mapping):
            return given
        tree = with_kinds(given)
        for name, value in defaults_beside(tree).items():
            section, leaf = name.split(".")
            if section in KINDS and not KINDS[section].may_have(tree.get(section, {}), leaf):
                continue
            branch = set_values(tree.get(section, {}))
            if isinstance(branch, Mapping):  # else a mistake that validation will tell
                tree[section] = {leaf: value, **branch}
        return tree

    @model_validator(mode="after")
    def _parts_fit(self, info: ValidationInfo) -> Self:
        if info.context == UNFINISHED:
            return self
        if isinstance(self.task, DigitsTaskSettings) and self.task.spread >= self.task.chain_length:
            raise ValueError(
                f"task.spread = {self.task.spread}: expected less than task.chain_length = {self.task.chain_length}"
            )
        for reason in meaningless(self):
            raise ValueError(reason)
        return self

    @model_serializer(mode="wrap")
    def _in_flat_layout(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Return as JSON every setting there is, whatever the kinds; see `flat_layout`."""
        tree: dict[str, Any] = handler(self)
        return flat_layout(tree, self._of_other_kinds) if info.mode == "json" else tree

    def beside(self, of_other_kinds: Mapping[str, Mapping[str, Any]]) -> Self:
        """The same run, of whose record what was said of other kinds is a part."""
        run = self.model_copy()
        run._of_other_kinds = of_other_kinds
        return run

    def digest(self) -> str:
        """12 hex digits that two runs share only if every setting is the same, their names (arm, method) aside."""
        return settings_digest(self.model_dump(mode="json"))
