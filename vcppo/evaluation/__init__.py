"""Evaluations of checkpoints and their reports."""
