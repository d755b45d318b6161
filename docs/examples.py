"""Sections called "Example" are examples to griffe, too, which reads docstrings for the pages on the API."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the sections."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with each object that was read."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
