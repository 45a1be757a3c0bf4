"""results/ to figures and tables: reads files only, no tracking server, no torch.

One module a figure, each `load -> compute -> draw`; `python -m vcppo.analysis --results results --out results/figures`.
"""
