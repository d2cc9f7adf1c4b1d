"""What is beside the service to run it: the commands in it are the command line's own."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from audiossm_apps.cli import make_parser

FOLDER = Path(__file__).parents[3] / "apps" / "deploy"
PORTS = ["127.0.0.1:8765", "127.0.0.1:8766"]


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def list_commands() -> list[list[str]]:
    unit = re.findall(r"^ExecStart=(.*)$", read("audiossm@.service"), re.MULTILINE)
    (said,) = re.findall(r"^CMD (\[.*\])$", read("Containerfile"), re.MULTILINE)
    blocks = re.findall(r"^```sh\n(.*?)^```$", read("README.md"), re.MULTILINE | re.DOTALL)
    lines = [line.replace("%i", "8765") for line in [*unit, *"".join(blocks).splitlines()]]
    commands = [shlex.split(line) for line in lines]
    assert len(commands) == 3 and all(Path(words[0]).name == "audiossm" for words in commands)
    return [*(words[1:] for words in commands), json.loads(said)]


@pytest.mark.parametrize("words", list_commands(), ids=" ".join)
def test_a_command_parses_and_asks_for_keys(words):
    args = make_parser().parse_args(words)
    assert words[0] == "serve" and args.keys and args.store


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_proxies_know_both_servers_and_keep_the_metrics(name):
    text = read(name)
    assert all(port in text for port in PORTS) and "/metrics" in text


@pytest.mark.skipif(shutil.which("caddy") is None, reason="there is no Caddy here")
def test_caddy_takes_its_file(tmp_path):
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", FOLDER / "Caddyfile"]
    homes = {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | homes)
    assert done.returncode == 0, done.stderr


def test_systemd_waits_for_longer_than_a_server_takes_to_end():
    (wait_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", read("audiossm@.service"), re.MULTILINE)
    assert int(wait_s) > 15 + 10
