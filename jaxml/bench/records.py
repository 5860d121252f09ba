"""Files of measurements."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxml.files import write_text


def write_rows(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces a file by a list of JSON objects, one a line; its directory is made.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if a row holds NaN or another value that is not JSON.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_rows(f"{folder}/rows.json", [{"median_ms": 3.1}])
    ...     Path(folder, "rows.json").read_text()
    '[\\n{"median_ms": 3.1}\\n]\\n'
    """
    text = "[\n" + ",\n".join(json.dumps(dict(row), allow_nan=False) for row in rows) + "\n]\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
