"""MLflow: what a study tells it, and studies read back from it."""
