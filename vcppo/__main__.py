"""`python -m vcppo` is the command `vcppo`."""

from vcppo.cli import main

if __name__ == "__main__":
    main()
