"""Diagnose a critic, and say where PPO goes with it: anybody's critic, on anybody's responses.

Data runs one way: a dump is read (`dumps`) into logged responses, a critic reads them (`readings`), the readings are
measured (`measures`, `alignment`), the measurements are judged by written rules (`verdicts`), and a page tells it
(`report`).
"""
