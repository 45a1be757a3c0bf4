"""Logs `trainer.total_training_steps` steps to VERL_FILE_LOGGER_PATH, with an accuracy of algorithm.lam.

FAKE_VERL, or the word fake.does, says what else: "fail at 4" ends badly in step 4 of its first start, "kill at 4" with
a signal, "silent" logs nothing, "wait" sleeps in the first step until the file `go` lies in the working directory.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path


def main():
    words = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:])
    words = {key: value.strip("'") for key, value in words.items()}
    does = words.get("fake.does") or os.environ.get("FAKE_VERL", "")
    checkpoints = Path(words["trainer.default_local_dir"])
    latest = checkpoints / "latest_checkpointed_iteration.txt"
    done = int(latest.read_text()) if latest.exists() else 0
    print(f"fake verl goes on from step {done}", flush=True)
    if does == "silent":
        return
    pretraining = "algorithm.vcppo.pretrain.steps" in words
    total, every = int(words["trainer.total_training_steps"]), int(words["trainer.save_freq"])
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "wb", buffering=0) as log:

        def say(step, data):
            clean = {name: None if isinstance(x, float) and math.isnan(x) else x for name, x in data.items()}
            log.write(json.dumps({"step": step, "data": clean}).encode() + b"\n")

        if not pretraining:
            say(done, evaluation(done))
        for step in range(done + 1, total + 1):
            if does == "wait":
                while not Path("go").exists():
                    time.sleep(0.02)
            if does in (f"fail at {step}", f"kill at {step}") and not done:
                if does.startswith("kill"):
                    os.kill(os.getpid(), signal.SIGKILL)
                print("Traceback (most recent call last):\n  File x\nRuntimeError: CUDA out of\tmemory")
                sys.exit(1)
            journal(words, step)
            data = pretraining_step(step) if pretraining else rl_step(step, float(words.get("algorithm.lam", 0.5)))
            if not pretraining and step == total:
                data |= evaluation(step)
            say(step, data)
            if step % every == 0 or step == total:
                (checkpoints / f"global_step_{step}" / "critic").mkdir(parents=True, exist_ok=True)
                latest.write_text(str(step))
    if pretraining:
        told = {"checkpoint": f"global_step_{total}", "updates": total, "settled": False}
        (checkpoints / "pretrained.json").write_text(json.dumps(told))


def journal(words, step):
    """A table of our trainer's."""
    columns = {"position": [0, 8], "from_end": [False, False], "n": [4, 2], "value_mean": [0.1, 0.2]}
    columns |= {"return_mean": [1.0, 1.0], "value_bias": [-0.9, -0.8], "explained_variance": [0.5, None]}
    columns |= {"advantage_mean": [0.9, 0.8]}
    record = {"kind": "table", "name": "critic_by_position", "step": step, "time": time.time(), "columns": columns}
    with open(words["algorithm.vcppo.journal"], "a") as file:
        file.write(json.dumps(record) + "\n")


def rl_step(step, accuracy):
    return {
        "rollout/accuracy": accuracy,
        "response_length/mean": 100.0 + step,
        "critic/vf_explained_var": 0.9,
        "value/explained_variance": math.nan if step == 1 else 0.25,
        "critic/vf_loss": 0.5,
        "timing_s/step": 0.01,
        "training/global_step": step,
        "a name@odd": 1,
    }


def pretraining_step(step):
    return {"critic/vf_loss": 1.0 / step, "pretrain/held_out_loss": 1.0 / step, "pretrain/explained_variance": 0.5}


def evaluation(step):
    return {
        "val-core/aime24/acc/mean@2": 0.1 * step,
        "val-aux/aime24/reward/mean@2": -1.0,
        "val-core/aime24/acc/best@2/mean": 0.9,
    }
