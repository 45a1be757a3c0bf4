"""Which folders are packages: those of vcppo, and in a wheel what `vcppo/system/shipped.py` looks for below vcppo."""

from setuptools import find_packages, setup

SHIPPED = {"ablations": "ablations", "recipes": "recipes", "paper": "results/paper"}
FOLDERS = {f"vcppo.shipped.{name}": folder for name, folder in SHIPPED.items()}

setup(
    packages=[*find_packages(include=["vcppo", "vcppo.*"]), *FOLDERS],
    package_dir=FOLDERS,
    package_data={package: ["*.toml", "*.csv"] for package in FOLDERS}
    | {"vcppo.diagnosis.report": ["*.html", "*.css", "*.js"]},
)
