"""The folder of a run: filled under a temporary name, moved into place when it is complete."""

import csv
import hashlib
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from jaxmem.types import JaxmemError


class OutputFolder:
    """Context manager that yields a temporary folder and renames it to `target` on success.

    On an exception nothing is left behind and an existing `target` stays as it was.

    Arguments:
        target: the run's folder.
        overwrite: replace an existing folder.

    Raises:
        JaxmemError: if `target` exists and `overwrite` is False, or its parent cannot be written.
    """

    def __init__(self, target: str | Path, overwrite: bool = False):
        self.target, self.overwrite = Path(target), overwrite

    def check(self) -> None:
        """Raise what entering would raise about the target, without touching anything."""
        target = self.target
        if target.exists() and not self.overwrite:
            raise JaxmemError(f"{target}: exists already; choose another folder or add --overwrite")
        if (
            target.exists()
            and not (target / "manifest.json").exists()
            and (not target.is_dir() or any(target.iterdir()))
        ):
            raise JaxmemError(
                f"{target}: not a folder of an earlier run, so it is not overwritten; choose another folder"
            )

    def __enter__(self) -> Path:
        self.check()
        target = self.target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        except OSError as error:
            raise JaxmemError(f"{target}: cannot be written ({error.strerror}); choose another folder") from None
        self.folder.chmod(0o755)
        return self.folder

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        if self.target.is_dir():
            shutil.rmtree(self.target)
        self.folder.rename(self.target)


def write_csv(path: Path, rows: list[dict], columns: list[str]) -> None:
    """Write rows under the given columns; a header alone if there are none."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
