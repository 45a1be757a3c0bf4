"""The command `vcppo`: its group, and how errors are shown. Each command has a module that loads what it needs."""

import os
import sys
from typing import Any

import click

from vcppo import __version__
from vcppo.cli.cache import cache
from vcppo.cli.diagnose import diagnose
from vcppo.cli.doctor import doctor
from vcppo.cli.evaluate import evaluate
from vcppo.cli.export import export, track
from vcppo.cli.figures import figures
from vcppo.cli.import_model import import_model
from vcppo.cli.plan import plan
from vcppo.cli.settings import methods_command, settings_command
from vcppo.cli.stages import cold_start, pretrain_value, reward_model, train
from vcppo.cli.status import status
from vcppo.cli.sweep import sweep
from vcppo.errors import ConfigError, VcppoError
from vcppo.system.disk import disk_error, is_disk_error
from vcppo.system.processes import INTERRUPTED, STOPPED, is_main
from vcppo.system.redaction import redact_output

# Spinning threads of two workers on two cores are 10 to 30 times slower than sleeping ones; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")


class OneLineErrors(click.Group):
    """The user's mistake is one line and exit code 2; ours is a traceback and exit code 1; Ctrl-C is a line and 130.

    Neither shows a secret.
    """

    def main(self, *arguments: Any, **named: Any) -> Any:
        """Redact output, then run the group."""
        redact_output()
        return super().main(*arguments, **named)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except VcppoError as error:
            if is_main() or not isinstance(error, ConfigError):  # every process meets a wrong setting
                click.echo(f"{type(error).__name__}: {' '.join(str(error).split())}", err=True)
            sys.exit(2)
        except OSError as error:
            if not is_disk_error(error):
                raise
            click.echo(f"DiskError: {' '.join(str(disk_error(error)).split())}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            if is_main():
                click.echo(STOPPED, err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vcppo")
def main() -> None:
    """Value-Calibrated PPO (arXiv 2503.01491), every part switchable and compared with its alternatives.

    \b
    A first look, on a laptop:
      vcppo sweep try --workers 2               PPO collapses, VC-PPO does not: 2 minutes on two cores
      vcppo sweep components --workers 2        the component study: 13 minutes on two cores
      vcppo status components                   how it stands, and what MLflow has not received
      mlflow ui --backend-store-uri sqlite:///runs/mlflow.db
      vcppo figures --results runs/results      draw its figures and tables again

    \b
    One run, step by step (each step takes what the last one left in the cache):
      vcppo cold-start, vcppo reward-model, vcppo pretrain-value, vcppo train, vcppo evaluate CHECKPOINT

    \b
    Your own critic, whoever trained it: what is wrong with it, and would PPO collapse?
      vcppo diagnose --answers ROLLOUTS --critic CRITIC --policy POLICY

    \b
    Real models, on GPUs:
      vcppo plan qwen2.5-7b-8gpu --gpus 8                       does it fit? (recipes/ has the file)
      torchrun --nproc-per-node 8 -m vcppo train --config qwen2.5-7b-8gpu
      vcppo evaluate owner/model --set task.name=maths          AIME, resumable, with intervals

    \b
    What a study leaves on disk:
      vcppo cache ls, vcppo cache verify, vcppo cache gc        by study, age and size; never what a study still needs

    `vcppo settings` lists every setting with its default, `vcppo methods` every method. A run with the same settings is
    never computed twice.
    """


for command in (
    train,
    cold_start,
    reward_model,
    pretrain_value,
    evaluate,
    sweep,
    status,
    diagnose,
    export,
    track,
    figures,
    methods_command,
    settings_command,
    plan,
    import_model,
    cache,
    doctor,
):
    main.add_command(command)
