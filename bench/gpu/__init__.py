"""Measure what needs a GPU to be known: `nox -s gpu`, or `python -m bench.gpu` without nox. See docs/scale.md."""
