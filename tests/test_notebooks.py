"""The notebooks run from top to bottom, as scripts, without the folder of real data."""

import runpy
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.fixture
def as_found(monkeypatch):
    """What a notebook may change for itself is put back: settings of JAX and matplotlib, and where modules are found."""
    precise, modules = jax.config.jax_enable_x64, set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with plt.rc_context():
        plt.switch_backend("Agg")
        yield monkeypatch
        plt.close("all")
    jax.config.update("jax_enable_x64", precise)
    for name in set(sys.modules) - modules:
        if "benchmarks" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, as_found, capsys):
    as_found.setenv("JAXMEM_NOTEBOOK_DATA", "none")
    as_found.setenv("JAXMEM_NOTEBOOK_CASES", "1")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users have it
        runpy.run_path(str(path), run_name="__main__")
    assert plt.get_fignums()
    assert capsys.readouterr().out


def test_there_are_notebooks():
    assert NOTEBOOKS
