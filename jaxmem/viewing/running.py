"""A command that runs beside the window."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def start(parent: Any, words: list[str], folder: Path, say: Callable[[str], None], done: Callable[[int], None]) -> Any:
    """Start a process that belongs to a Qt widget, and return it.

    Arguments:
        parent: the widget.
        words: the program and its arguments.
        folder: in which it runs.
        say: told each last line that it writes.
        done: told its exit status when it ends.
    """
    from qtpy import QtCore

    process = QtCore.QProcess(parent)
    process.setProcessChannelMode(QtCore.QProcess.MergedChannels)
    process.setWorkingDirectory(str(folder))

    def hear() -> None:
        lines = bytes(process.readAll()).decode(errors="replace").replace("\r", "\n").strip().splitlines()
        if lines:
            say(lines[-1])

    process.readyRead.connect(hear)
    process.finished.connect(lambda code, _status=None: done(int(code)))
    process.start(words[0], words[1:])
    return process
