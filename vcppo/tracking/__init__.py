"""MLflow: studies uploaded to it, and read back from it."""
