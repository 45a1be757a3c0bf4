"""A small dump of every form, as its trainer writes it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vcppo.rl.metrics import samples_table
from vcppo.store.journal import Journal
from vcppo.store.samples import SampledProblem, SampleFolder
from vcppo.types import Generation, Prompt, Rollout, Verdict

# Three responses to two prompts, in every form: to "1+1=" a right and a wrong one, to "2+2=" a right one.
TEXTS = [("1+1=", "2", 1.0), ("1+1=", "3", 0.0), ("2+2=", "4", 1.0)]
IDS = [([11, 12], [21, 99]), ([11, 12], [22, 99]), ([13, 14], [23, 24, 99])]


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def verl(folder: Path) -> Path:
    rows = [
        {
            "input": f"user\n{prompt}\nassistant\n",
            "output": text,
            "gts": "2",
            "score": score,
            "step": 1,
            "acc": score > 0,
        }
        for prompt, text, score in TEXTS
    ]
    write_lines(folder / "1.jsonl", rows)
    return folder


def trl(folder: Path) -> Path:
    rows = [
        {"step": 5, "prompt": prompt, "completion": text, "right": score, "tidy": 0.0, "source": "a", "advantage": 0.7}
        for prompt, text, score in TEXTS
    ]
    write_parquet(folder / "completions_00005.parquet", rows)
    return folder


def trl_ppo(folder: Path) -> Path:
    return wandb_table(folder / "c.table.json", ["query", "model response", "score"], TEXTS)


def wandb_table(path: Path, columns: list[str], data: Sequence[Sequence[Any]]) -> Path:
    path.write_text(json.dumps({"columns": columns, "data": [list(row) for row in data], "ncols": len(columns)}))
    return path


def openrlhf(folder: Path) -> Path:
    data = [[7, f"user\n{prompt}\nassistant\n{text}", score] for prompt, text, score in TEXTS]
    return wandb_table(folder / "generated_samples_7_ab12.table.json", ["global_step", "text", "reward"], data)


def openrlhf_inference(folder: Path) -> Path:
    return write_lines(folder / "out.jsonl", [{"input": p, "output": t, "reward": s} for p, t, s in TEXTS])


def nemo_rl(folder: Path) -> Path:
    rows = []
    for at, ((prompt, text, score), (before, ids)) in enumerate(zip(TEXTS, IDS, strict=True)):
        padding = [0] * (6 - len(before + ids))
        rows.append(
            {
                "content": [[f"<user>{prompt}", text]],
                "rewards": [score],
                "input_lengths": [len(before + ids)],
                "token_ids": [before + ids + padding],
                "token_loss_mask": [[0] * len(before) + [1] * len(ids) + padding],
                "sample_loss_mask": [1.0],
                "advantages": [[0.5] * 6],
                "generation_logprobs": [[0.0] * len(before) + [-0.5] * len(ids) + [0.0] * len(padding)],
                "prev_logprobs": [[0.0] * 6],
                "idx": at,
            }
        )
    return write_lines(folder / "train_data_step3.jsonl", rows).parent


def nemo_rl_validation(folder: Path) -> Path:
    rows = []
    for at, (prompt, text, score) in enumerate(TEXTS):
        turns = [("user", prompt), ("assistant", text), ("environment", "Environment: done")]
        content = [{"role": role, "content": described} for role, described in turns]
        rows.append({"content": [content], "rewards": [score], "idx": at})
    return write_lines(folder / "val_data_step3.jsonl", rows)


def slime_samples() -> list[dict[str, Any]]:
    return [
        {
            "group_index": 0,
            "prompt": prompt,
            "tokens": before + ids,
            "response": text,
            "response_length": len(ids),
            "reward": {"score": score, "pred": text},
            "loss_mask": [1] * len(ids),
            "rollout_log_probs": [-0.5] * len(ids),
            "status": "truncated" if text == "3" else "completed",
            "remove_sample": False,
        }
        for (prompt, text, score), (before, ids) in zip(TEXTS, IDS, strict=True)
    ]


def slime(folder: Path) -> Path:
    return write_lines(folder / "12.jsonl", slime_samples())


def slime_whole(folder: Path) -> Path:
    path = folder / "12.json"
    path.write_text(json.dumps({"rollout_id": 12, "samples": slime_samples()}))
    return path


def slime_training(folder: Path) -> Path:
    rows = [
        {
            "tokens": before + ids,
            "response_lengths": len(ids),
            "loss_masks": [1] * len(ids),
            "rewards": score,
            "truncated": 0,
            "values": [0.25] * len(ids),
            "log_probs": [-0.5] * len(ids),
        }
        for (_, _, score), (before, ids) in zip(TEXTS, IDS, strict=True)
    ]
    return write_lines(folder / "12.jsonl", rows)


def lighteval(folder: Path) -> Path:
    rows = [
        {
            "doc": {"query": prompt, "choices": [text], "gold_index": 0, "task_name": "sums"},
            "metric": {"em": score, "exact": score},
            "model_response": {
                "input": prompt,
                "input_tokens": a,
                "text": [text],
                "output_tokens": [b],
                "logprobs": [],
            },
        }
        for (prompt, text, score), (a, b) in zip(TEXTS, IDS, strict=True)
    ]
    return write_parquet(folder / "details_sums_2026.parquet", rows)


def lighteval_before(folder: Path) -> Path:
    rows = [
        {"full_prompt": p, "predictions": [t], "cont_tokens": [b], "input_tokens": [a], "metrics": {"em": s}}
        for (p, t, s), (a, b) in zip(TEXTS, IDS, strict=True)
    ]
    return write_parquet(folder / "details.parquet", rows)


def rollouts() -> list[Rollout]:
    return [
        Rollout(
            Prompt(f"sums-{prompt}", prompt, "2"),
            tuple(before),
            Generation(tuple(ids), (-0.5,) * len(ids), "length" if text == "3" else "stop"),
            text,
            Verdict.CORRECT if score else Verdict.WRONG,
        )
        for (prompt, text, score), (before, ids) in zip(TEXTS, IDS, strict=True)
    ]


def vcppo(folder: Path) -> Path:
    first, second, third = rollouts()
    store = SampleFolder(folder / "samples", notice=lambda line: None)
    for number, group in enumerate(([first, second], [third])):
        store.write(SampledProblem.of(number, 0, 0, group))
    (folder / "report.json").write_text("{}")
    return folder


def vcppo_journal(folder: Path) -> Path:
    journal = Journal(folder / "journal.jsonl")
    journal.metrics(10, {"a": 1.0})
    journal.table("samples", 10, samples_table(rollouts()))
    return folder / "journal.jsonl"


def generic(folder: Path) -> Path:
    rows = [{"question": p, "response": t, "Score": str(bool(s)), "values": [0.5, 0.25]} for p, t, s in TEXTS]
    return write_lines(folder / "mine.jsonl", rows)


def generic_conversation(folder: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": t}], "reward": s, "level": None}
        for p, t, s in TEXTS
    ]
    return write_parquet(folder / "mine.parquet", rows)


WRITERS: list[tuple[str, Callable[[Path], Path]]] = [
    ("verl", verl),
    ("trl", trl),
    ("trl", trl_ppo),
    ("openrlhf", openrlhf),
    ("openrlhf", openrlhf_inference),
    ("nemo-rl", nemo_rl),
    ("nemo-rl", nemo_rl_validation),
    ("slime", slime),
    ("slime", slime_whole),
    ("slime", slime_training),
    ("lighteval", lighteval),
    ("lighteval", lighteval_before),
    ("vcppo", vcppo),
    ("vcppo", vcppo_journal),
    ("generic", generic),
    ("generic", generic_conversation),
]
