"""Classes of critics: token classifiers, and sequence classifiers, whose head can be applied after every token too."""

import functools
from typing import Any

from torch import dtype, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from vcppo.errors import CheckpointError


def classifier_of(config: PretrainedConfig, path: object, *, biased: bool = True) -> Any:
    """Class for a critic with another head: a token classifier, whose head adds a constant, else a sequence classifier.

    Of OLMo, Gemma 3 and some others transformers has a sequence classifier alone.

    Args:
        path: for messages.
        biased: whether the head adds a constant; a sequence classifier is then given one, which transformers' has not.
    Raises:
        CheckpointError: transformers has neither for such a model.
    """
    kind = config.model_type
    if kind in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES or kind not in MODEL_MAPPING_NAMES:
        return AutoModelForTokenClassification  # of one that transformers does not know, by its own code
    if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        if not biased:
            return AutoModelForSequenceClassification
        return _with_bias(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)])
    raise CheckpointError(
        f"{path}: transformers has no classifier for {kind} models, so they have no critic; expected another model, "
        "critic.path, or a method without a critic"
    )


def saved_classifier(config: PretrainedConfig, weights: frozenset[str], path: object) -> Any:
    """Class that loads a saved critic, by the architecture in its configuration and the names of its weights.

    Raises:
        CheckpointError: it has more than one label.
    """
    (architecture, *_) = config.architectures or ("",)
    is_sequence_classifier = architecture.endswith("ForSequenceClassification")
    if (is_sequence_classifier or architecture.endswith("ForTokenClassification")) and config.num_labels != 1:
        raise CheckpointError(
            f"{path}: {architecture} with {config.num_labels} labels, expected a critic, which is a token or sequence "
            "classifier with one label"
        )
    if not is_sequence_classifier:
        return AutoModelForTokenClassification
    return classifier_of(config, path) if "score.bias" in weights else AutoModelForSequenceClassification


@functools.cache
def _with_bias(kind: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A sequence classifier whose head adds a constant, which transformers' does not; saved under the same name."""

    class Classifier(kind):  # type: ignore[misc]
        score: nn.Linear

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            self.score = nn.Linear(self.score.in_features, self.score.out_features)

        @classmethod
        def from_config(cls, config: PretrainedConfig, *, dtype: dtype, trust_remote_code: bool) -> PreTrainedModel:
            """As the Auto classes have it."""
            made: PreTrainedModel = cls._from_config(config, dtype=dtype)
            return made

    Classifier.__name__ = Classifier.__qualname__ = kind.__name__
    return Classifier
