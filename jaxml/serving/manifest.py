"""The manifest of a bundle: what the files are, and that they are what was written."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxml import checks, files

FILE = "manifest.json"
FORMAT = 1
_MAX_BYTES = 16 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BundleError(ValueError):
    """A directory is no bundle, or damaged, or written by a newer version. The message is one line."""


class Tensor(NamedTuple):
    """An input or output, as the Open Inference Protocol describes it.

    Attributes:
        name: of the column or output.
        datatype: such as `"FP64"`, `"INT64"` or `"BYTES"`.
        shape: −1 for the number of rows.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        name: of the model.
        created: time in UTC, ISO 8601.
        inputs: the raw columns.
        outputs: what `predict` returns.
        parameters: names of the parameters, in the order in which the program takes them.
        max_batch: the largest number of rows that the program is given at once.
        metrics: figures of the training, by name.
        findings: of the monitor, as texts.
        environment: device and versions at the time of writing.
        files: SHA-256 and bytes of each file, by name.
        format: of the bundle.
    """

    name: str
    created: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[str, ...]
    max_batch: int
    metrics: Mapping[str, float]
    findings: tuple[str, ...]
    environment: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and through its hashes of the bundle."""
        return hashlib.sha256(_canonical(dataclasses.asdict(self))).hexdigest()


def checked_name(name: str) -> str:
    """Returns a name that is safe as a file's name and in a URL, or raises a ValueError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"name must be letters, digits, '.', '_' and '-', at most 100 of them, got {name!r:.120}"
        )
    return name


def checked_batch(max_batch: int) -> int:
    """Returns the largest number of rows of a call, or raises a ValueError if it is no power of two."""
    number = checks.integer("max_batch", max_batch, 1, 1 << 16)
    if number & (number - 1):
        raise ValueError(f"max_batch must be a power of two, got {number}")
    return number


def hashed(directory: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns SHA-256 and size of each file."""
    return {
        name: {"sha256": _sha256(directory / name), "bytes": (directory / name).stat().st_size}
        for name in names
    }


def write(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest, with its own SHA-256."""
    files.write_json(directory / FILE, {**dataclasses.asdict(manifest), "sha256": manifest.digest})


def read(directory: Path) -> Manifest:
    """Returns the manifest of a bundle whose files are all there, with the hashes that it names.

    Raises:
        BundleError: no bundle, a format that this version does not know, or a file that differs.
    """
    path = directory / FILE
    if not path.is_file() or path.is_symlink():
        reason = "has no manifest.json" if directory.is_dir() else "no such directory"
        raise BundleError(f"{directory}: is no bundle: {reason}")
    if path.stat().st_size > _MAX_BYTES:
        raise BundleError(f"{path}: is damaged: it may have {_MAX_BYTES} bytes")
    try:
        manifest = _parsed(path)
        for name, wanted in manifest.files.items():
            _verify(directory / checked_name(name), wanted)
    except (BundleError, OSError):
        raise
    except Exception as error:  # What was made up can raise anything.
        raise BundleError(f"{path}: is damaged: {error!r:.120}") from error
    return manifest


def _parsed(path: Path) -> Manifest:
    content = json.loads(path.read_text("utf-8"))
    written = content["format"]
    if not isinstance(written, int) or written > FORMAT:
        raise BundleError(
            f"{path.parent}: was written in format {written!r:.20} by a newer version; this one reads "
            f"formats up to {FORMAT}"
        )
    own = content.pop("sha256")
    for name in ("inputs", "outputs"):
        content[name] = tuple(Tensor(n, d, tuple(s)) for n, d, s in content[name])
    for name in ("parameters", "findings"):
        content[name] = tuple(content[name])
    manifest = Manifest(**content)
    if own != manifest.digest:
        raise BundleError(f"{path}: is damaged: its SHA-256 differs from the one written in it")
    checked_name(manifest.name)
    checked_batch(manifest.max_batch)
    return manifest


def _verify(path: Path, wanted: Mapping[str, Any]) -> None:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path}: is missing, or a link")
    if path.stat().st_size != wanted["bytes"]:
        raise BundleError(f"{path}: has {path.stat().st_size} bytes, should be {wanted['bytes']}")
    if _sha256(path) != wanted["sha256"]:
        raise BundleError(f"{path}: is damaged: its SHA-256 is not that of the manifest")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()
