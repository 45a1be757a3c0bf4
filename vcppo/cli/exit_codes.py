"""Exit codes that say how a study or a run stands; `vcppo --help` and docs/tracking.md list them."""

FAILED = 1  # cells failed
MISTAKE = 2  # one line names it
NOT_EXPORTED = 3  # every cell is done, and results are not exported or not drawn
NOT_DELIVERED = 4  # every cell is done and exported, and MLflow or Optuna lack something that waits on disk
UNFINISHED = 5  # cells are left to run
