"""Files of problems, and the settings that read them."""

import json
from pathlib import Path
from typing import Any

from vcppo.settings import known_sets
from vcppo.settings.task import MathsSettings
from vcppo.tasks import problems


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def settings(train: str, evaluate: str, **more: object) -> MathsSettings:
    return MathsSettings(train=train, evaluate=evaluate, **more)


HUB: dict[tuple[str, str | None, str], Any] = {
    ("HuggingFaceH4/aime_2024", None, "train"): [{"id": 60, "problem": "p", "solution": "so 204", "answer": "204"}],
    ("MathArena/aime_2025", None, "train"): [{"problem_idx": 1, "problem": "p", "answer": 70, "problem_type": ["x"]}],
    ("open-r1/DAPO-Math-17k-Processed", "all", "train"): [{"prompt": "p", "solution": "34", "ability": "MATH"}],
    ("HuggingFaceH4/MATH-500", None, "test"): [
        {"problem": "p", "solution": "s \\boxed{x}", "answer": "x", "unique_id": "test/1.json"}
    ],
    ("openai/gsm8k", "main", "train"): [{"question": "p", "answer": "1+1=<<1+1=2>>2\n#### 2"}],
    ("openai/gsm8k", "main", "test"): [{"question": "q", "answer": "#### 1,200"}],
    ("owner/other", None, "validation"): [{"query": "p", "target": 3}],
} | {
    ("EleutherAI/hendrycks_math", subject, split): [{"problem": f"{subject} {split}", "solution": "\\boxed{\\pi}"}]
    for subject in known_sets.MATH_SUBJECTS
    for split in ("train", "test")
}  # fmt: skip


def forget() -> None:
    problems._problem_sets.cache_clear()
    problems._evaluation_set.cache_clear()
