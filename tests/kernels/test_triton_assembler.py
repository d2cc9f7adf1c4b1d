"""Triton's assembler: an old one is passed over, and refused on Hopper."""

from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton")

from audiossm_kernels import triton_assembler as assembler  # noqa: E402

VARIABLE = "TRITON_PTXAS_PATH"


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """Let torch bring the version that is set here, and Triton the one of a path or 12.8."""
    versions = {"torch": "13.0"}
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "ptxas"
    path.write_text("")
    path.chmod(0o755)
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "none"))
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is undone
    monkeypatch.delenv(VARIABLE)

    def from_path(name):
        return SimpleNamespace(path=name, version=versions["torch"])

    class Knobs:
        NvidiaTool = SimpleNamespace(from_path=from_path)

        @property
        def nvidia(self):
            chosen = VARIABLE in assembler.os.environ
            return SimpleNamespace(
                ptxas=SimpleNamespace(version=versions["torch"] if chosen else "12.8")
            )

    monkeypatch.setattr(assembler, "triton", SimpleNamespace(knobs=Knobs()))
    assembler.refuse_assembler.cache_clear()
    yield versions, str(path)
    assembler.refuse_assembler.cache_clear()


def test_torchs_newer_one_is_taken(tools):
    assembler.choose_assembler()
    assert assembler.os.environ[VARIABLE] == tools[1]


def test_an_older_one_of_torch_is_not_taken(tools):
    tools[0]["torch"] = "12.6"
    assembler.choose_assembler()
    assert VARIABLE not in assembler.os.environ


def test_a_users_choice_stays(tools, monkeypatch):
    monkeypatch.setenv(VARIABLE, "mine")
    assembler.choose_assembler()
    assert assembler.os.environ[VARIABLE] == "mine"


def test_an_old_one_is_refused_on_hopper_only(tools, monkeypatch):
    tools[0]["torch"] = "12.6"
    capability = {0: (9, 0), 1: (8, 9)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability.get)
    with pytest.warns(UserWarning, match="ptxas 12.8"):
        assert "ptxas 12.8 makes wrong code for Hopper" in assembler.refuse_assembler(0)
    assert assembler.refuse_assembler(1) is None


def test_a_new_one_is_not_refused(tools, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert assembler.refuse_assembler(0) is None
