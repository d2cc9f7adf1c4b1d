"""A redis-server of one's own, for a test or a proof, that keeps nothing on the disk."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

__all__ = ["why_no_redis", "run_redis"]


def why_no_redis() -> str:
    """Say what lacks, or ""."""
    try:
        import redis  # noqa: F401
    except ImportError:
        return "the package redis is not installed"
    return "" if shutil.which("redis-server") else "there is no redis-server here"


@contextlib.contextmanager
def run_redis() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start one, and yield its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        + ["--appendonly", "no", "--loglevel", "warning"],
        stdout=subprocess.DEVNULL,
        cwd="/tmp",
    )
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0", process
    finally:
        process.kill()
        process.wait()
