"""Estimates of what a run will take of memory and time, before it starts."""
