"""VC-PPO inside verl (https://github.com/verl-project/verl), and verl as the engine of `vcppo sweep`; docs/verl.md.

Only `trainer` and `launch` import verl. The rest runs where verl is not installed.
"""

TRAINER = "vcppo"  # the name under which verl finds our trainer: trainer.v1.trainer_mode=vcppo
PLUGIN = "vcppo.verl_plugin.trainer"  # the module whose import registers it
VERL = "0.9.1"  # the version that all of this was written for and is tested against
