"""On Ray, killed workers and replicas cost nothing: the proofs, with a tiny model."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from redis_server import why_no_redis

FOLDER = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="the extra 'ray' is not installed"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc"),
]


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=FOLDER, timeout=600
    )
    if "timed out during startup" in done.stdout + done.stderr:
        pytest.skip("Ray gives its own processes 30 s to start: this machine is too busy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_folder_survives_its_workers():
    options = ["--tiny", "--files", "8", "--length-s", "400"]  # fewer come between two looks
    run("kill_ray.py", *options, "--kills", "1", "--longest-s", "0")


@pytest.mark.skipif(bool(why_no_redis()), reason=why_no_redis())
def test_a_service_survives_its_replicas():
    options = ["--ray", "--store", "redis", "--tiny", "--decoder", "greedy", "--clients", "2"]
    run("kill_server.py", *options, "--kills", "1", "--speed", "2", "--longest-s", "2")
