"""The command `vcppo`."""
