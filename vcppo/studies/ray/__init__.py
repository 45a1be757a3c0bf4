"""The nodes of a Ray cluster as machines for the cells of a study; docs/studies.md."""

import os

# Read when Ray is imported: of a lost node it writes the last twenty lines of a log among the lines of the progress.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
