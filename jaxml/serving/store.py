"""The bundles of one model, by version, and which of them is in use.

STORE/
  store.json         {"current": 3, "before": [1, 2]}
  versions/1/ …      bundles, never changed
  verdicts/          a record and a page of each judgement
  served/            what was served, by version, for `check`
"""

import json
import os
import shutil
from pathlib import Path

from jaxml import files
from jaxml.serving import manifest

__all__ = ["Store", "StoreError", "bundle_of"]


class StoreError(ValueError):
    """A directory is no store, is empty, or is damaged. The message is one line."""


def bundle_of(path: str | os.PathLike[str]) -> tuple[Path, int]:
    """Returns the directory and the version of the bundle that a store uses; a bundle alone is version 1.

    Raises:
        StoreError: there is neither.
    """
    if (Path(path) / manifest.FILE).exists():
        return Path(path), 1
    place = Store(path).bundle()
    return place, int(place.name)


class Store:
    """The versions of one model in a directory.

    Args:
        path: the directory; `add` makes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"<Store {os.fspath(self.path)!r}: versions {self.versions()}>"

    @property
    def record(self) -> Path:
        """The file that says which version is in use."""
        return self.path / "store.json"

    def versions(self) -> list[int]:
        """Returns the numbers of all versions, ascending."""
        place = self.path / "versions"
        names = [each.name for each in place.iterdir()] if place.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def current(self) -> int | None:
        """Returns the version in use, None for a store without one."""
        return self._read()[0]

    def bundle(self, version: int | None = None) -> Path:
        """Returns the directory of a version, by default of the one in use.

        Raises:
            StoreError: there is none.
        """
        if version is None:
            version = self.current()
        if version is None:
            reason = "no bundle has been published" if self.path.is_dir() else "no such directory"
            raise StoreError(f"{self.path}: is empty: {reason}")
        place = self.path / "versions" / str(version)
        if not place.is_dir():
            raise StoreError(f"{self.path}: has no version {version}, but {self.versions()}")
        return place

    def add(self, bundle: str | os.PathLike[str]) -> int:
        """Copies a bundle as the next version, which is not yet in use; returns its number.

        Raises:
            BundleError: if it is none, or damaged.
        """
        described = manifest.read(Path(bundle))
        number = max(self.versions(), default=0) + 1
        target = self.path / "versions" / str(number)
        with files.new_directory(target) as beside:
            for name in (*described.files, manifest.FILE):
                shutil.copyfile(Path(bundle) / name, beside / name)
            manifest.read(beside)
        return number

    def switch(self, version: int) -> None:
        """Puts a version into use, atomically."""
        self.bundle(version)
        current, before = self._read()
        before = [*before, current] if current is not None else before
        files.write_json(self.record, {"current": version, "before": before})

    def rollback(self) -> int:
        """Puts the version before back into use; returns its number.

        Raises:
            StoreError: there is none before.
        """
        current, before = self._read()
        if current is None or not before:
            self.bundle()
            raise StoreError(f"{self.path}: has no version before {current}")
        manifest.read(self.bundle(before[-1]))
        files.write_json(self.record, {"current": before[-1], "before": before[:-1]})
        return before[-1]

    def _read(self) -> tuple[int | None, list[int]]:
        if (self.path / manifest.FILE).exists():  # `serve` would go on answering by it.
            raise StoreError(f"{self.path}: is a bundle, a store is wanted")
        if not self.record.exists():
            return None, []
        try:
            content = json.loads(self.record.read_text("utf-8"))
            return int(content["current"]), [int(each) for each in content["before"]]
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise StoreError(f"{self.record}: is damaged: {error!r:.120}") from error
