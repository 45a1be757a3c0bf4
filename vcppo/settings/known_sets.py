"""Sources of problems: sets with a short name, any other set on the hub, or a file."""

from dataclasses import dataclass
from typing import Literal

Form = Literal["number", "closed-form", "expression"]  # of an answer; see vcppo/tasks/forms.py

FILES = (".jsonl", ".parquet", ".csv")


@dataclass(frozen=True)
class HubSet:
    """A set on the dataset hub, and what its columns are called; a name with a dot reaches into a column."""

    hub: str
    question: str
    answer: str | None  # none: the last \\boxed{} of the solution
    solution: str | None
    name: str | None
    train_split: str
    evaluate_split: str
    problems: int  # of the split for evaluation
    configs: tuple[str | None, ...] = (None,)
    form: Form = "closed-form"  # that answers have


MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
KNOWN = {
    "aime24": HubSet(
        "HuggingFaceH4/aime_2024", "problem", "answer", "solution", "id", "train", "train", 30, form="number"
    ),
    "aime25": HubSet(
        "MathArena/aime_2025", "problem", "answer", None, "problem_idx", "train", "train", 30, form="number"
    ),
    "dapo-math-17k": HubSet(
        "open-r1/DAPO-Math-17k-Processed", "prompt", "solution", None, None, "train", "train", 17398, ("all",), "number"
    ),
    "math": HubSet(
        "EleutherAI/hendrycks_math", "problem", None, "solution", None, "train", "test", 5000, MATH_SUBJECTS
    ),
    "math-500": HubSet("HuggingFaceH4/MATH-500", "problem", "answer", "solution", "unique_id", "test", "test", 500),
    "gsm8k": HubSet("openai/gsm8k", "question", "answer", "answer", None, "train", "test", 1319, ("main",), "number"),
}


def form_of(*sources: str) -> Form:
    """The form of answers to problems of these sources together: numbers where all of them have numbers."""
    numbers = all(source in KNOWN and KNOWN[source].form == "number" for source in sources)
    return "number" if numbers else "closed-form"


def is_file(source: str) -> bool:
    """True if a source is a file, by its suffix."""
    return source.endswith(FILES)


def label(source: str) -> str:
    """A short name for metrics and problems: `data/My Sums.jsonl` is `my-sums`, `owner/Set_2` is `set_2`."""
    stem = source.rpartition("/")[2].rpartition("\\")[2]
    if is_file(source):
        stem = stem.rpartition(".")[0]
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in stem.lower()).strip("-")
    return cleaned or "maths"
