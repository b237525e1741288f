"""Packages of the installed form; everything else is in pyproject.toml.

The recipes are in train/recipes, beside the script that uses them in a checkout, and are installed with the package.
"""

from setuptools import find_packages, setup

RECIPES = "birefnet_core.training.recipes"

setup(
    packages=[*find_packages(include=["birefnet_core*"]), "birefnet_core.assets", RECIPES],
    package_dir={RECIPES: "train/recipes"},
)
