"""The rules of the design, checked: rings, docstrings, the names of things, and what the README promises."""

import ast
import doctest
import functools
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest
from conftest import PACKAGE

import jaxmem

RINGS = [
    {"types", "settings", "defaults", "numerics", "points", "checkpoints", "_xla"},
    {"ellipse", "gp", "anchors", "levelset", "density", "membrane", "ridges", "preprocess", "simulate"},
    {"unet", "grouping", "measure"},
    {"surface", "metrics", "results", "io", "report"},
    {"pipeline", "batch", "viewing", "console", "_arguments", "cli", "__main__"},
]
RING = {name: ring for ring, names in enumerate(RINGS) for name in names}
MODULES = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "jaxmem.")]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports hide what is imported"
            names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return names


def test_every_module_has_a_ring():
    here = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in SOURCES} - {"__init__"}
    assert len(here) >= 18
    assert not here - RING.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "jaxmem" and len(parts) > 1 and parts[1] != own:
            assert parts[1] == "__version__" or RING[parts[1]] <= RING[own], f"{path.name} imports {name}"
        if RING[own] < 2:
            assert parts[0] not in {"flax", "optax", "mrcfile", "matplotlib"}, f"{path.name} imports {name}"
        if own != "console":
            assert parts[0] != "tqdm", f"{path.name} imports {name}"


class Seen(NamedTuple):
    """A public class, function, method or property, and what it is without `jit` and other wrappers."""

    name: str
    given: Any
    bare: Any
    doc: str


def bare(value):
    """What lies under `jax.jit`, `functools.wraps`, properties and class methods."""
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    elif isinstance(value, staticmethod | classmethod):
        value = value.__func__
    return inspect.unwrap(value)


def inherited_doc(owner: type, name: str) -> str:
    return next(
        (doc for base in owner.__mro__ if (doc := bare(vars(base)[name]).__doc__ if name in vars(base) else "")), ""
    )


@functools.cache
def public(module: str) -> list[Seen]:
    """Public things that a module defines, compiled ones as well; of classes their methods and properties."""
    out = []
    for name, value in vars(importlib.import_module(module)).items():
        thing = bare(value)
        if name.startswith("_") or not callable(thing) or getattr(thing, "__module__", None) != module:
            continue
        if not inspect.isclass(thing):
            assert inspect.isfunction(thing), f"{module}.{name} is callable, but neither class nor function"
            out.append(Seen(f"{module}.{name}", value, thing, thing.__doc__ or ""))
            continue
        made_up = (thing.__doc__ or "").startswith(f"{thing.__name__}(")  # by NamedTuple and dataclass
        out.append(Seen(f"{module}.{name}", value, thing, "" if made_up else thing.__doc__ or ""))
        for part, member in vars(thing).items():
            if not part.startswith("_") and inspect.isfunction(bare(member)) and bare(member).__module__ == module:
                out.append(Seen(f"{module}.{name}.{part}", member, bare(member), inherited_doc(thing, part)))
    return out


def functions(module: str) -> list[Seen]:
    return [seen for seen in public(module) if inspect.isfunction(seen.bare)]


def test_every_public_thing_is_looked_at():
    """Nothing that the sources define by `def` or `class` may be missed, however it is wrapped."""
    written = set()
    for path in SOURCES:
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                written.add(f"{module}.{node.name}")
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                members = [n.name for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
                written |= {f"{module}.{node.name}.{member}" for member in members}
    everything = [seen for module in MODULES for seen in public(module)]
    assert len(written) >= 250
    assert not written - {seen.name for seen in everything}
    compiled = [seen for seen in everything if isinstance(seen.given, type(jax.jit(len)))]
    assert len(compiled) >= 40
    assert sum(len(section(seen.doc, "Arguments")) for seen in everything) >= 250


@pytest.mark.parametrize("module", MODULES)
def test_public_things_are_documented(module):
    assert (importlib.import_module(module).__doc__ or "").strip()
    assert not [seen.name for seen in public(module) if not seen.doc.strip()]


@pytest.mark.parametrize("module", MODULES)
def test_keys_come_first_and_have_no_default(module):
    for seen in functions(module):
        parameters = [p for p in inspect.signature(seen.bare).parameters.values() if p.name not in ("self", "cls")]
        for place, parameter in enumerate(parameters):
            if parameter.name in ("key", "keys") or "Key[" in str(parameter.annotation):
                assert parameter.name in ("key", "keys"), seen.name
                assert place == 0, seen.name
                assert parameter.default is inspect.Parameter.empty, seen.name


def section(doc: str, title: str) -> list[str]:
    """Names before the colons of a docstring's section."""
    lines = inspect.cleandoc(doc).splitlines()
    names: list[str] = []
    for line in lines[lines.index(f"{title}:") + 1 :] if f"{title}:" in lines else []:
        if line and not line.startswith(" "):
            break
        if found := re.match(r"    ((?:\w+, )*\w+):( |$)", line):
            names += found[1].split(", ")
    return names


def test_sections_of_docstrings_are_understood():
    doc = "One.\n\n    Arguments:\n        a, b: two.\n            more: of it\n        c: last.\n\n    Returns:\n        d: no."
    assert section(doc, "Arguments") == ["a", "b", "c"]
    assert section(doc, "Attributes") == []


@pytest.mark.parametrize("module", MODULES)
def test_documented_arguments_and_attributes_exist(module):
    for seen in public(module):
        for title in ("Arguments", "Attributes"):
            assert bool(section(seen.doc, title)) == (f"{title}:" in seen.doc), seen.name
        if arguments := section(seen.doc, "Arguments"):
            init = getattr(seen.bare, "__init__", None) if inspect.isclass(seen.bare) else None
            called = init if inspect.isfunction(init) else seen.bare
            assert not set(arguments) - set(inspect.signature(called).parameters), seen.name
        if attributes := section(seen.doc, "Attributes"):
            fields = {name for base in seen.bare.__mro__ for name in vars(base).get("__annotations__", {})}
            assert not set(attributes) - fields - set(dir(seen.bare)), seen.name


@pytest.mark.parametrize("module", MODULES)
def test_options_are_keyword_only_or_documented(module):
    wrong = []
    for seen in functions(module):
        for option in inspect.signature(seen.bare).parameters.values():
            if option.default is not inspect.Parameter.empty and option.kind is not inspect.Parameter.KEYWORD_ONLY:
                wrong += [] if re.search(rf"\b{option.name}\b", seen.doc) else [f"{seen.name}: {option.name}"]
    assert not wrong


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    written = sum(line.strip().startswith(">>> ") for line in Path(module.__file__).read_text().splitlines())
    assert sum(len(test.examples) for test in doctest.DocTestFinder().find(module)) == written
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
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
    verbs = (PACKAGE / "_arguments.py").read_text() + (PACKAGE / "batch" / "verbs.py").read_text()
    for option in re.findall(r"(?<=[\s`])--[a-z-]+", (root / "docs" / "commands.md").read_text()):
        assert f'"{option}"' in verbs or option in ("--help", "--no-keep"), option


def test_version_is_that_of_the_changelog():
    changelog = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()
    assert f"## {jaxmem.__version__}" in changelog


def test_examples_of_the_library_run():
    text = (Path(__file__).parents[1] / "docs" / "library.md").read_text()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        if any(name in block for name in ("gp.", "ell.", "link_segments")):
            exec(block, names)
    assert float(names["inside"]) < 0.0
    assert 0.0 < float(names["error"]) < 10.0
    assert 8.0 < float(names["radius"](0.5)) < 12.0
    assert names["found"].success


def test_the_example_of_measurements_runs(capsys):
    text = (Path(__file__).parents[1] / "docs" / "measure.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, {})
    assert float(capsys.readouterr().out) == pytest.approx(3.6, abs=0.02)
