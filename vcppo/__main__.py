"""`python -m vcppo` is `vcppo`; `torchrun -m vcppo` is one of many."""

from vcppo.cli import main

main(prog_name="vcppo")
