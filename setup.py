"""What pyproject.toml cannot say: recipes/ and policies/ of the repository's top lie inside `sdpo` in a wheel."""

from setuptools import find_namespace_packages, setup

ours = find_namespace_packages(include=["sdpo", "sdpo.*", "sandbox", "sandbox.*"], exclude=["*.__pycache__"])
setup(
    packages=[*ours, "sdpo.recipes", "sdpo.policies"],
    package_dir={"sdpo.recipes": "recipes", "sdpo.policies": "policies"},
)
