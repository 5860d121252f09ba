"""Runs `eight_devices.py` on eight virtual devices, which a process must ask for before JAX starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("marks", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_eight_devices_give_the_results_of_one(marks):
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", marks, here / "eight_devices.py"],
        cwd=here.parent,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
