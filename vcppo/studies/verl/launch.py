"""`python -m vcppo.studies.verl.launch --parent PID KEY=VALUE ...`: verl's main, once our trainer is registered.

verl is silent when a plugin does not load, so that is checked here, before Ray starts.
"""

import os
import sys

from vcppo.studies.verl import PLUGIN, TRAINER
from vcppo.system.processes import die_with
from vcppo.system.redaction import redact_output


def main() -> None:
    """Run verl's PPO with the given overrides; die with the parent, so that no run outlives its cell."""
    flag, parent, *words = sys.argv[1:]
    assert flag == "--parent", "launched by vcppo.studies.verl.cells"
    die_with(int(parent))
    redact_output()
    os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", PLUGIN)  # also in the processes that Ray starts from here
    problem = missing_registration()
    if problem is not None:
        print(f"vcppo: {problem}", flush=True)
        sys.exit(2)
    from verl.trainer.main_ppo import main as verl_main

    sys.argv = ["verl.trainer.main_ppo", *words]
    verl_main()


def missing_registration() -> str | None:
    """Return why verl would not find our trainer, None if it would."""
    try:
        import verl
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    except ImportError as error:
        return f"verl cannot be imported: {error}"
    if TRAINER not in TRAINER_REGISTRY:
        return (
            f"verl {verl.__version__} has not loaded our trainer: expected {PLUGIN} by its entry point in group "
            "verl.plugins, or in VERL_USE_EXTERNAL_MODULES"
        )
    return None


if __name__ == "__main__":
    main()
