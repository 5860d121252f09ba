"""Files of data that ship inside installed packages. No code of the package is run."""

import importlib.metadata
import re


class DataMissing(Exception):
    """The package that carries the data is not installed, or is damaged."""


def version(package: str, wanted: str) -> str:
    """Returns the installed version of a package.

    Args:
        package: name of the distribution, as `pip install` takes it.
        wanted: version that the error names.

    Raises:
        DataMissing: one line with the command that installs it.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataMissing(
            f"the package {package} is not installed: pip install {package}=={wanted}"
        ) from error


def read(package: str, wanted: str, path: str) -> bytes:
    """Returns the content of a file of a package. Arguments and errors as in `version`.

    Args:
        path: of the file, from the directory that packages are installed in.
    """
    version(package, wanted)
    try:
        with open(str(importlib.metadata.distribution(package).locate_file(path)), "rb") as file:
            return file.read()
    except OSError as error:
        raise damaged(package, wanted, path, error) from error


def damaged(package: str, wanted: str, path: str, error: object) -> DataMissing:
    """Returns the error for a file that is not what it should be."""
    name = re.sub(".*/", "", path)
    return DataMissing(
        f"{package} has no readable {name} ({error}): "
        f"pip install --force-reinstall {package}=={wanted}"
    )
