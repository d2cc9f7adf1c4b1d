"""Pictures of a codec show what was measured and what was heard."""

import json
import math
import sys

import numpy as np
import pytest
import soundfile
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig
from audiossm.config import to_dict
from audiossm.errors import DependencyError, OutputError
from audiossm.evaluate.codec_pictures import (
    draw_spectrograms,
    find_loudest,
    plot_quality,
    spectrogram,
)
from audiossm.evaluate.codec_scores import CodecEvaluation, Score
from audiossm.evaluate.coders import Coded, Coder
from audiossm.evaluate.quality import Quality
from audiossm.manifest import read_manifest
from audiossm.pictures import load_pyplot
from audiossm_apps.cli import main
from tiny_model import SPEECH, read_speech

RATE = 16000
PNG = b"\x89PNG"


@pytest.fixture
def pyplot():
    pytest.importorskip("matplotlib")
    return load_pyplot()


@pytest.fixture
def evaluation() -> CodecEvaluation:
    def score(coder: str, bps: float, pesq: float | None) -> Score:
        return Score(
            key="a",
            coder=coder,
            quality=Quality(pesq_wb=pesq, stoi=0.9),
            payload_bps=bps,
            delay_s=0.0,
        )

    return CodecEvaluation(
        scores=(score("b", 4000, 2.5), score("a", 1000, 1.5), score("c", 6000, None)),
        failures={},
        audio_s=60,
        metrics=("pesq", "stoi"),
        series={"ours": ("b", "a"), "libopus": ("c",)},
        codec="ours",
        codec_hash="",
        codec_latency_s=0.035,
        machine={},
        packages={},
    )


def test_the_plot_has_a_curve_of_each_series(pyplot, evaluation, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    plot_quality(evaluation, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == PNG
    pesq, stoi = drawn[0].axes
    # in the order of bit rates; what has no value has no point
    assert {line.get_label(): line.get_xydata().tolist() for line in pesq.lines} == {
        "ours": [[1, 1.5], [4, 2.5]]
    }
    assert {line.get_label(): line.get_xydata().tolist() for line in stoi.lines} == {
        "ours": [[1, 0.9], [4, 0.9]],
        "libopus": [[6, 0.9]],
    }
    monkeypatch.undo()
    pyplot.close("all")


def test_a_picture_that_cannot_be_written_is_told(pyplot, evaluation, tmp_path):
    with pytest.raises(OutputError, match="can't write there"):
        plot_quality(evaluation, tmp_path / "missing" / "plot.png")
    with pytest.raises(OutputError, match=r"plot\.sound: .*not supported"):
        plot_quality(evaluation, tmp_path / "plot.sound")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't make the folder"):
        draw_spectrograms([], [], tmp_path / "file")


def test_a_tone_is_a_line_at_its_frequency():
    tone = torch.sin(2 * math.pi * 2000 * torch.arange(RATE) / RATE)
    power = spectrogram(tone)
    assert power.shape[0] == 257
    assert (power[:, 5:-5].argmax(0) == 64).all()  # 2000 of 8000 Hz


def test_the_loudest_stretch_is_found():
    x = torch.randn(300)
    sums = [float(x[i : i + 40].square().sum()) for i in range(261)]
    assert find_loudest(x, 40) == int(np.argmax(sums))
    assert find_loudest(x, 300) == find_loudest(x, 400) == 0


def test_each_clip_is_a_picture_of_the_original_and_every_coder(pyplot, tmp_path, monkeypatch):
    def halve(samples: torch.Tensor, lost: np.ndarray) -> Coded:
        return Coded(0.1 * samples, 0.0, 0.0)

    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    utterances = read_manifest(SPEECH / "manifest.jsonl")[:2]
    coder = Coder(series="quiet", name="quiet", code=halve)
    assert draw_spectrograms([coder], utterances, tmp_path / "new") == {}
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [f"{i:02d}-{u.key}.png" for i, u in enumerate(utterances, 1)]
    for figure in drawn:
        titles = [axis.get_title() for axis in figure.axes]
        assert titles[:2] == ["original", "quiet"]
        original, quiet = (axis.images[0].get_array() for axis in figure.axes[:2])
        loud = original > original.max() - 40
        np.testing.assert_allclose((original - quiet)[loud], 20, atol=1e-3)
        # one scale for all
        assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim()
    monkeypatch.undo()
    pyplot.close("all")


def test_the_command_draws(pyplot, tmp_path, capsys):
    for package in ("pystoi", "av"):
        pytest.importorskip(package)
    codec = Codec(CodecConfig.tiny())
    save_model(tmp_path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    lines = []
    for name in ("river", "bread", "gone"):
        if name != "gone":
            soundfile.write(tmp_path / f"{name}.wav", read_speech(name)[:RATE], RATE)
        lines.append(json.dumps({"key": f"x/{name}", "path": f"{name}.wav", "text": ""}))
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    command = ["evaluate", "codec", str(tmp_path / "m.jsonl"), "--model", str(tmp_path / "toy")]
    command += ["--metrics", "stoi", "--groups", "4", "--jobs", "1"]
    command += ["--plot", str(tmp_path / "p.png"), "--spectrograms", str(tmp_path / "s")]
    assert main(command) == 1  # one is unreadable: told once, and left out
    assert capsys.readouterr().err.count("gone") == 2  # its key, and its file
    assert (tmp_path / "p.png").read_bytes()[:4] == PNG
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert names == ["01-x_river.png", "02-x_bread.png"]


def test_without_matplotlib_a_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"matplotlib.*pip install 'audiossm\[eval\]'"):
        load_pyplot()
    # before anything is measured
    assert main(["evaluate", "codec", "missing.jsonl", "--plot", "a.png"]) == 1
    assert "matplotlib" in capsys.readouterr().err
