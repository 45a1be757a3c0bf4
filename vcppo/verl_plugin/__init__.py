"""VC-PPO inside verl (https://github.com/verl-project/verl): its trainer with two lambdas; docs/verl.md.

Only `trainer` imports verl. The rest runs where verl is not installed.
"""
