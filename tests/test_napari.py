"""A run opened, corrected and exported in napari; `.ci/peers` installs it and gives it a screen, other runs of the tests skip this."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxmem.cli import main
from jaxmem.io import write_mrc
from jaxmem.types import Tomogram

napari = pytest.importorskip("napari", reason="napari is not installed: .ci/peers does that")
pytestmark = pytest.mark.skipif("DISPLAY" not in os.environ, reason="napari needs a screen: .ci/peers has one")


@pytest.fixture(scope="module")
def run(shells, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("napari")
    write_mrc(folder / "mask.mrc", shells[0], Tomogram(shells[0], 12.0))
    arguments = ["fit", str(folder / "mask.mrc"), "-o", str(folder / "run"), "--instances", "--keep", "--quiet"]
    assert main(arguments) == 0
    return folder / "run"


@pytest.fixture
def viewer(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    viewer.open(tmp_path / "run", plugin="jaxmem")
    yield viewer
    viewer.close()


def picture(viewer, name: str, canvas_only: bool = True) -> np.ndarray:
    """A screenshot, kept where JAXMEM_PICTURES says."""
    folder = os.environ.get("JAXMEM_PICTURES")
    path = Path(folder) / f"{name}.png" if folder else None
    return viewer.screenshot(path=path, canvas_only=canvas_only, flash=False)


def test_a_run_is_opened_by_its_folder(viewer):
    assert {"membranes", "error bars (A)", "surfaces", "surfaces by value"} <= {layer.name for layer in viewer.layers}
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    viewer.layers["membranes"].visible = False
    seen = picture(viewer, "surfaces")
    assert len(np.unique(seen[..., :3].reshape(-1, 3), axis=0)) > 50
    extent = viewer.layers["surfaces"].extent.world
    labels = viewer.layers["membranes"]
    places = np.argwhere(labels.data > 0) * 12.0
    assert np.abs(extent - [places.min(0), places.max(0)]).max() < 3 * 12.0


def test_the_sample_is_the_bundled_tomogram(viewer):
    viewer.open_sample("jaxmem", "phantom")
    assert viewer.layers["true membranes"].data.max() == 6


def test_the_worst_membrane_is_found_dropped_and_the_rest_exported(viewer, qtbot_free):
    _, widget = viewer.window.add_plugin_dock_widget("jaxmem", "Membranes of a run")
    panel = widget.panel
    assert panel.table.rowCount() == 3
    panel.table.selectRow(0)
    worst = panel.chosen()[0]
    assert viewer.layers["membranes"].selected_label == worst
    picture(viewer, "chosen", canvas_only=False)
    panel.edit("drop")
    panel.edit("close")  # of the same
    panel.undo()
    assert panel.edits.count() == 1
    before = {n: v.copy() for n, v in panel.desk.vertices().items()}
    panel.run_again()
    qtbot_free(lambda: panel.process is None)
    assert panel.said.text() == "done"
    assert panel.table.rowCount() == 2
    after = panel.desk.vertices()
    others = [v for n, v in before.items() if n != worst]
    assert all(np.array_equal(a, b) for a, b in zip(after.values(), others))
    panel.colour.setCurrentText("error bar (A)")
    viewer.dims.ndisplay = 3
    picture(viewer, "corrected", canvas_only=False)
    panel.format.setCurrentText("vtp")
    panel.export()
    assert len(list((panel.desk.run / "export").glob("*.vtp"))) == 2


def test_what_is_missing_is_said(viewer):
    _, widget = viewer.window.add_plugin_dock_widget("jaxmem", "Membranes of a run")
    panel = widget.panel
    panel.edit("drop")
    assert "needs one membrane" in panel.said.text()
    panel.table.selectRow(0)
    panel.edit("split")
    assert panel.said.text() == "Set points first."
    panel.ask_points()
    viewer.layers["points for edits"].add([[100.0, 200.0, 300.0], [110.0, 210.0, 310.0]])
    assert panel.points()[0] == (300.0, 200.0, 100.0)
    panel.edit("split")
    assert len(panel.desk.edits[-1].points) == 2
    assert not len(viewer.layers["points for edits"].data)
    panel.threshold.setValue(60)
    assert "did not keep" in panel.said.text()  # a mask has no probabilities


@pytest.fixture
def qtbot_free():
    """Wait for something while the window goes on."""
    from qtpy import QtCore, QtWidgets

    def wait(condition, seconds: float = 300.0) -> None:
        clock = QtCore.QElapsedTimer()
        clock.start()
        while not condition() and clock.elapsed() < 1000 * seconds:
            QtWidgets.QApplication.processEvents(QtCore.QEventLoop.AllEvents, 100)
        assert condition()

    return wait
