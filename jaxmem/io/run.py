"""The folder of a run: filled under a temporary name, moved into place when it is complete."""

import csv
import hashlib
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from jaxmem.types import JaxmemError


class _OnlyAsking(Exception):
    """Ends a folder's context without a trace."""


class OutputFolder:
    """Context manager that yields a temporary folder and renames it to `target` on success.

    On an exception nothing is left behind and an existing `target` stays as it was.

    Arguments:
        target: the run's folder.
        overwrite: replace an existing folder.
        work: the temporary folder; one of a new name beside the target when None. What is in it is thrown away.

    Raises:
        JaxmemError: if `target` exists and `overwrite` is False, its parent cannot be written, or the disk is full.
    """

    def __init__(self, target: str | Path, overwrite: bool = False, work: Path | None = None):
        self.target, self.overwrite, self.work = Path(target), overwrite, work

    def check(self) -> None:
        """Raise now what entering would raise later: before the work, not after it."""
        with self:
            raise _OnlyAsking

    def __enter__(self) -> Path:
        target = self.target
        try:
            if target.exists() and not self.overwrite:
                raise JaxmemError(f"{target}: exists already; choose another folder or add --overwrite")
            earlier = (target / "manifest.json").exists() or (target.is_dir() and not any(target.iterdir()))
            if target.exists() and (target.is_symlink() or not earlier):
                raise JaxmemError(
                    f"{target}: not a folder of an earlier run, so it is not overwritten; choose another folder"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.work is None:
                self.folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            else:
                self.folder = self.work
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
        except OSError as error:
            raise JaxmemError(f"{target}: cannot be written ({error.strerror}); choose another folder") from None
        self.folder.chmod(0o755)
        return self.folder

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise JaxmemError(
                    f"{self.target}: cannot be written ({error.strerror or error}); make room or choose another folder"
                ) from None
            return kind is _OnlyAsking
        aside = None
        if self.target.is_dir():
            aside = self.folder.with_name(self.folder.name + "-old")
            self.target.rename(aside)
        self.folder.rename(self.target)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        return False


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
