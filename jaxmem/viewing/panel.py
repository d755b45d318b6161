"""The panel in napari: membranes of a run, what is to be changed of them, and a run that changes it."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxmem.pipeline.export import FORMATS, export_run
from jaxmem.types import JaxmemError
from jaxmem.viewing.desk import Desk
from jaxmem.viewing.layers import LABELS, SHADED, SURFACES, VALUES, faded, layers_of, spread
from jaxmem.viewing.running import start

_COLUMNS = {"membrane": "membrane", "closed": "closed", "seen": "seen_fraction", "error bar (A)": "median_sigma_A"}
_POINTS, _PROBABILITY = "points for edits", "probability"
_ON_MEMBRANES = (
    ("join", "Join", "the chosen membranes are one"),
    ("split", "Split at points", "the chosen membrane is several: a point on each"),
    ("drop", "Drop", "the chosen membrane is none"),
    ("close", "Close", "the chosen membrane closes"),
    ("open", "Leave open", "the chosen membrane ends"),
    ("add", "Through points", "the chosen membrane goes through the points"),
    ("keep", "Keep at point", "what was dropped at the point is a membrane"),
)


def corrections() -> Any:
    """For napari: the panel of the viewer at hand, a Qt widget; its `panel` attribute is the `Panel`."""
    import napari

    return Panel(napari.current_viewer()).widget


class Panel:
    """The panel of one viewer.

    Arguments:
        viewer: napari's.

    Attributes:
        widget: the Qt widget.
        desk: the run that is shown; None before there is one.
    """

    widget: Any
    desk: Desk | None

    def __init__(self, viewer: Any):
        from qtpy import QtCore, QtWidgets

        self.viewer, self._qt = viewer, QtWidgets
        self.desk = None
        self.widget = QtWidgets.QWidget()
        self.widget.panel = self
        column = QtWidgets.QVBoxLayout(self.widget)
        self.title = QtWidgets.QLabel("Open a run's folder: File, Open Folder")
        self.title.setWordWrap(True)
        column.addWidget(self.title)
        self.table = QtWidgets.QTableWidget(0, len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(list(_COLUMNS))
        self.table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        self.table.setEditTriggers(QtWidgets.QAbstractItemView.NoEditTriggers)
        self.table.horizontalHeader().setSectionResizeMode(QtWidgets.QHeaderView.Stretch)
        self.table.verticalHeader().hide()
        self.table.itemSelectionChanged.connect(self.show_chosen)
        column.addWidget(QtWidgets.QLabel("What deserves a look comes first. Choose one to see it; several with Ctrl."))
        column.addWidget(self.table)
        grid = QtWidgets.QGridLayout()
        self.buttons: dict[str, Any] = {}
        for k, (verb, text, meaning) in enumerate(_ON_MEMBRANES):
            grid.addWidget(self._button(verb, text, meaning, lambda _=False, v=verb: self.edit(v)), k // 3, k % 3)
        grid.addWidget(self._button("points", "Set points", "a layer to click points into", self.ask_points), 2, 1)
        grid.addWidget(self._button("undo", "Undo", "take the last edit back", self.undo), 2, 2)
        column.addLayout(grid)
        self.edits = QtWidgets.QListWidget()
        self.edits.setMaximumHeight(110)
        column.addWidget(self.edits)
        row = QtWidgets.QHBoxLayout()
        row.addWidget(self._button("save", "Save edits", "for segment --edit", self.save))
        row.addWidget(self._button("run", "Run again", "make the edits", self.run_again))
        column.addLayout(row)
        form = QtWidgets.QFormLayout()
        self.colour = QtWidgets.QComboBox()
        self.colour.addItems(["membrane", *VALUES])
        self.colour.currentTextChanged.connect(self.paint)
        form.addRow("surfaces show", self.colour)
        self.threshold = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self.threshold.setRange(5, 95)
        self.threshold.valueChanged.connect(self.show_threshold)
        self.threshold_text = QtWidgets.QLabel("")
        form.addRow("threshold", self.threshold)
        form.addRow("", self.threshold_text)
        self.format = QtWidgets.QComboBox()
        self.format.addItems(FORMATS)
        form.addRow(self.format, self._button("export", "Export", "write the surfaces", self.export))
        column.addLayout(form)
        self.said = QtWidgets.QLabel("")
        self.said.setWordWrap(True)
        column.addWidget(self.said)
        self.process: Any = None
        viewer.layers.events.inserted.connect(self._look)
        self._look()

    def _button(self, name: str, text: str, meaning: str, action: Any) -> Any:
        button = self._qt.QPushButton(text)
        button.setToolTip(meaning)
        button.clicked.connect(action)
        self.buttons[name] = button
        return button

    def _look(self, _event: Any = None) -> None:
        """Take the run of the layers that are there."""
        for layer in self.viewer.layers:
            run = layer.metadata.get("run")
            if run and (self.desk is None or str(self.desk.run) != run):
                self.take(run)

    def take(self, run: str | Path) -> None:
        """Show the membranes of a `run` (a folder)."""
        desk = self.desk = Desk(run)
        rows = desk.rows
        self.title.setText(f"{desk.run.name}: {len(rows)} membranes")
        self.table.setRowCount(len(rows))
        for i, row in enumerate(rows):
            for j, key in enumerate(_COLUMNS.values()):
                text = {"closed": "yes" if row["closed"] == "1" else "no"}.get(key, row[key])
                if key == "seen_fraction":
                    text = f"{float(row[key]):.0%}"
                self.table.setItem(i, j, self._qt.QTableWidgetItem(text))
        threshold = desk.manifest["config"]["midline"]["threshold"]
        self.threshold.setValue(round(100 * float(threshold)))
        self._list()

    def chosen(self) -> list[int]:
        """Numbers of the membranes that are chosen in the table."""
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        return [int(self.table.item(row, 0).text()) for row in rows]

    def show_chosen(self) -> None:
        """Bring the first chosen membrane into view; labels show the chosen alone."""
        numbers = self.chosen()
        if not numbers or self.desk is None:
            return
        centre = self.desk.vertices()[numbers[0]].mean(0)[::-1]
        dims = self.viewer.dims
        for axis in range(3):
            dims.set_point(axis, centre[axis])
        getattr(self.viewer, "scene", self.viewer).camera.center = tuple(centre)  # napari 0.9 moved the camera
        if LABELS in self.viewer.layers:
            self.viewer.layers[LABELS].selected_label = numbers[0]
        if SURFACES in self.viewer.layers and SHADED in self.viewer.layers:
            layer = self.viewer.layers[SURFACES]
            layer.vertex_colors = faded(layer.vertex_colors, self.viewer.layers[SHADED].metadata["membrane"], numbers)

    def ask_points(self) -> None:
        """A layer to click points into; it is emptied when an edit has taken them."""
        if _POINTS not in self.viewer.layers:
            self.viewer.add_points(np.zeros((0, 3)), name=_POINTS, size=40.0, face_color="yellow", ndim=3)
        layer = self.viewer.layers[_POINTS]
        self.viewer.layers.selection.active = layer
        layer.mode = "add"
        self.say("Click points in the slices, then press the edit's button.")

    def points(self) -> list[tuple[float, float, float]]:
        """Points that were clicked, xyz in A."""
        if _POINTS not in self.viewer.layers:
            return []
        layer = self.viewer.layers[_POINTS]
        return [tuple(np.asarray(layer.data_to_world(p))[::-1].tolist()) for p in layer.data]

    def edit(self, verb: str) -> None:
        """Note an edit of the chosen membranes.

        Arguments:
            verb: see `Edit`.
        """
        if self.desk is None:
            self.say("Open a run first.")
            return
        points = self.points() if verb in ("split", "add", "keep") else []
        if verb in ("split", "add", "keep") and not points:
            self.say("Set points first.")
            return
        try:
            self.desk.add(verb, self.chosen(), points)
        except JaxmemError as error:
            self.say(str(error))
            return
        if points:
            self.viewer.layers[_POINTS].data = np.zeros((0, 3))
        self.say("")
        self._list()

    def undo(self) -> None:
        """Take the last edit back."""
        if self.desk is not None:
            self.desk.undo()
        self._list()

    def _list(self) -> None:
        self.edits.clear()
        self.edits.addItems([str(edit) for edit in self.desk.edits] if self.desk else [])

    def save(self) -> None:
        """Write the edits beside the run."""
        if self.desk is not None:
            self.desk.command()
            self.say(f"written: {self.desk.path}" if self.desk.edits else "there are no edits")

    def run_again(self) -> None:
        """Run the command with the edits; the new run replaces the layers."""
        if self.desk is None or self.process is not None:
            return
        threshold = round(float(self.desk.manifest["config"]["midline"]["threshold"]), 2)
        asked = self.threshold.value() / 100
        settings = [] if abs(asked - threshold) < 0.005 else [f"midline.threshold={asked:g}"]
        try:
            words, folder = self.desk.command(settings)
        except JaxmemError as error:
            self.say(str(error))
            return
        self.buttons["run"].setEnabled(False)
        self.say("running ...")
        self.process = start(self.widget, words, folder, self.say, self._finished)

    def _finished(self, code: int) -> None:
        self.process = None
        self.buttons["run"].setEnabled(True)
        if code == 0:
            self.reload()
            self.say("done")

    def reload(self) -> None:
        """Read the run again, and replace its layers."""
        if self.desk is None:
            return
        run = self.desk.run
        for data, about, kind in layers_of(run):
            if about["name"] in self.viewer.layers:
                self.viewer.layers.remove(about["name"])
            getattr(self.viewer, f"add_{kind}")(data, **about)
        self.take(run)
        self.paint(self.colour.currentText())

    def paint(self, name: str) -> None:
        """Show a value on the surfaces.

        Arguments:
            name: one of `VALUES`; anything else is the membranes' colours.
        """
        layers = self.viewer.layers
        if SHADED not in layers or SURFACES not in layers:
            return
        layers[SURFACES].visible, layers[SHADED].visible = name not in VALUES, name in VALUES
        if name in VALUES:
            layer = layers[SHADED]
            values = layer.metadata["values"][name]
            layer.vertex_values = values
            layer.contrast_limits_range = (float(values.min()), max(float(values.max()), float(values.min()) + 1e-6))
            layer.contrast_limits = spread(values)

    def show_threshold(self, percent: int) -> None:
        """Show what the network is surer of than so many percent; the next run uses it.

        Arguments:
            percent: of the probability.
        """
        self.threshold_text.setText(f"{percent / 100:.2f} (midline.threshold)")
        if self.desk is None or LABELS not in self.viewer.layers:
            return
        own = round(100 * float(self.desk.manifest["config"]["midline"]["threshold"]))
        if _PROBABILITY not in self.viewer.layers:
            if percent == own:
                return
            volume = self.desk.probability()
            if volume is None:
                self.say("the run did not keep the network's probabilities: run it again with --keep to see them")
                return
            like = self.viewer.layers[LABELS]
            look = {"scale": like.scale, "translate": like.translate, "blending": "additive", "colormap": "cyan"}
            self.viewer.add_image(volume, name=_PROBABILITY, **look)
        level = 2.55 * percent
        self.viewer.layers[_PROBABILITY].contrast_limits = (level, level + 1.0)

    def export(self) -> None:
        """Write the surfaces in the format that is chosen."""
        if self.desk is None:
            return
        try:
            files = export_run(self.desk.run, [self.format.currentText()])
        except JaxmemError as error:
            self.say(str(error))
            return
        self.say(f"{len(files)} files in {files[0].parent}" if files else "nothing to export")

    def say(self, text: str) -> None:
        """Put a `text` at the foot of the panel."""
        self.said.setText(text)
