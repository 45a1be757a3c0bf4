"""Files, locks, processes, secrets, provenance: what any program needs, and nothing of training."""
