"""verl as a runner of a study's cells; docs/verl.md."""

TRAINER = "vcppo"  # the name under which verl finds our trainer: trainer.v1.trainer_mode=vcppo
PLUGIN = "vcppo.verl_plugin.trainer"  # the module whose import registers it
VERL = "0.9.1"  # the version that all of this was written for and is tested against
