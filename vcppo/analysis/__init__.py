"""results/ to figures and tables: reads files only, no tracking server, no torch.

One module per figure, each `load -> compute -> draw`; `python -m vcppo.analysis --results results` draws all.
"""
