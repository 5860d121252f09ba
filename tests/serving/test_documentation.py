"""The page of the documentation works as typed: commands, the server, and a client of it."""

import contextlib
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "packages" / "serving.md"
BLOCK = re.compile(r"^```(python|py|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(line):
    """Runs a command as a reader types it."""
    if "check" in line:  # The log is written within five seconds.
        deadline = time.monotonic() + 20
        while not list(Path("store/served/1").glob("*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    command = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


@contextlib.contextmanager
def serving(line):
    """Runs a server until the block ends."""
    command = [sys.executable, *shlex.split(line)[1:]]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, **options) as server:
        try:
            assert server.stdout.readline().startswith("serving late version 1 on http://127")
            yield
        finally:
            server.terminate()
    assert server.returncode == 0


@pytest.mark.slow
def test_the_page_works_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[2]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    namespace = {"__name__": "page"}
    with contextlib.ExitStack() as servers:
        for kind, block in BLOCK.findall(PAGE.read_text()):
            block = block.replace("8000", port)
            if kind != "console":
                exec(compile(block, PAGE.name, "exec"), namespace)
                continue
            for line in block.splitlines():
                if "serve" in line.split():
                    servers.enter_context(serving(line))
                else:
                    run(line)
    assert Path("check.png").stat().st_size and Path("answers/lookup.sqlite").exists()
