"""What needs a GPU to be known: `nox -s gpu`, or `python -m bench.gpu` where there is no nox. See docs/scale.md."""
