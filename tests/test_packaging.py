"""What is installed: quick to import, typed, small, and listed as what it is."""

import pkgutil
import pydoc
import subprocess
import sys
import zlib

import pytest
from conftest import PACKAGE

import jaxmem

SLOW = ("matplotlib", "optax", "flax", "skimage", "mrcfile", "jax")
LARGEST = 5e6  # bytes of a wheel


def run_python(code: str) -> str:
    """What a fresh interpreter prints, started where this package is found."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_importing_loads_nothing_slow():
    code = f"import jaxmem, sys; print(jaxmem.__file__, *(name for name in {SLOW} if name in sys.modules))"
    assert run_python(code).split() == [str(PACKAGE / "__init__.py")]


def test_the_core_needs_neither_flax_nor_matplotlib():
    code = (
        "import sys; from jaxmem import anchors, ellipse, gp, levelset, points; "
        "print(*(name for name in ('matplotlib', 'optax', 'flax', 'skimage') if name in sys.modules))"
    )
    assert run_python(code).split() == []


def test_matplotlib_waits_for_a_report():
    assert run_python("import jaxmem, sys; jaxmem.segment; print('matplotlib' in sys.modules)").strip() == "False"


def test_public_names_are_listed_and_found():
    listed = set(dir(jaxmem))
    assert {"Config", "Result", "Tomogram", "JaxmemError", "evaluate", "fit_mask", "load_config", "segment"} <= listed
    assert listed == set(jaxmem.__all__)
    for name in listed:
        assert getattr(jaxmem, name) is not None
    assert jaxmem.segment is jaxmem.pipeline.segment
    with pytest.raises(AttributeError, match="no attribute 'segments'"):
        _ = jaxmem.segments


def test_every_public_module_is_listed():
    found = {module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if not module.name.startswith("_")}
    assert found - {"cli"} <= set(dir(jaxmem))


def test_help_shows_the_public_functions():
    text = pydoc.render_doc(jaxmem, renderer=pydoc.plaintext)
    for name in ("segment(", "fit_mask(", "evaluate(", "load_config(", "class Config", "class Tomogram"):
        assert name in text


def test_type_checkers_see_annotations_and_names():
    assert (PACKAGE / "py.typed").is_file()
    names = [name for name in jaxmem.__all__ if name != "__version__"]
    for name in names:
        assert f"import {name} as {name}\n" in (PACKAGE / "__init__.py").read_text(), name


def test_the_wheel_is_small():
    """A wheel holds each file deflated by itself."""
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    size = sum(len(zlib.compress(path.read_bytes())) for path in files)
    assert size < LARGEST, f"{size / 1e6:.1f} MB"
