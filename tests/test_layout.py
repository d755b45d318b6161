"""The rules of the design, checked: rings, docstrings, the names of things, and what the README promises."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from conftest import PACKAGE

import jaxmem

RINGS = [
    {"types", "settings", "numerics", "points", "checkpoints", "_xla"},
    {"ellipse", "gp", "anchors", "levelset", "membrane", "ridges", "preprocess", "simulate"},
    {"unet", "grouping"},
    {"surface", "metrics", "results", "io", "report"},
    {"pipeline", "cli"},
]
RING = {name: ring for ring, names in enumerate(RINGS) for name in names}
MODULES = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "jaxmem.")]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "jaxmem" and len(parts) > 1 and parts[1] in RING and parts[1] != own:
            assert RING[parts[1]] <= RING[own], f"{path.name} imports {name}"
        if RING[own] < 2:
            assert parts[0] not in {"flax", "optax", "mrcfile", "matplotlib"}, f"{path.name} imports {name}"
        if own != "cli":
            assert parts[0] != "tqdm", f"{path.name} imports {name}"


@pytest.mark.parametrize("name", MODULES)
def test_public_things_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for thing, value in vars(module).items():
        if thing.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{name}.{thing} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_keys_come_first_and_have_no_default(name):
    for thing, value in vars(importlib.import_module(name)).items():
        if inspect.isfunction(value) and value.__module__ == name:
            parameters = list(inspect.signature(value).parameters.values())
            for place, parameter in enumerate(parameters):
                if parameter.name == "key":
                    assert place == 0, f"{name}.{thing}"
                    assert parameter.default is inspect.Parameter.empty, f"{name}.{thing}"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_files_stay_short():
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 300}
    assert not long


def test_readme_commands_are_those_of_ci():
    root = Path(__file__).parents[1]
    readme, ci = (root / "README.md").read_text(), (root / ".ci" / "run").read_text()
    assert "pip install . && jaxmem demo" in readme
    assert "pip install '.[test]' && pytest" in readme
    assert "README.md" in ci  # it takes the command from there
    for option in re.findall(r"(?<=\s)--[a-z-]+", readme.split("## Commands")[1].split("\n## ")[0]):
        assert f'"{option}"' in (PACKAGE / "cli.py").read_text(), option


def test_version_is_that_of_the_changelog():
    changelog = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()
    assert f"## {jaxmem.__version__}" in changelog


def test_the_readmes_example_of_the_library_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        if any(name in block for name in ("gp.", "ell.", "link_segments")):
            exec(block, names)
    assert float(names["inside"]) < 0.0
    assert 0.0 < float(names["error"]) < 10.0
    assert 8.0 < float(names["radius"](0.5)) < 12.0
    assert names["found"].success
