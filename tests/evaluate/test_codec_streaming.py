"""Streaming figures of a codec tell what they say, and notice a codec that doesn't stream."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import CodecConfig
from audiossm.config import to_dict
from audiossm.evaluate.codec_streaming import (
    CodecStreaming,
    compare_steps,
    evaluate_codec_streaming,
    find_lag,
    measure_onset,
    measure_wait,
    time_steps,
)
from audiossm.manifest import read_manifest
from audiossm.streaming import AudioCodec, DecoderSession, EncoderSession
from audiossm_apps.cli import main
from tiny_model import read_speech
from toy_codec import make_audio_codec, make_codec

RATE = 16000


@pytest.fixture
def codec() -> AudioCodec:
    """A codec that a test may break."""
    return AudioCodec(make_codec(), name="toy", model_hash="0" * 32)


@pytest.fixture
def manifest(tmp_path) -> Path:
    """A second of speech: in longer ones the random codec magnifies rounding."""
    soundfile.write(tmp_path / "a.wav", read_speech()[:RATE], RATE)
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({"key": "a", "path": "a.wav", "text": ""}))
    return path


@pytest.fixture
def samples() -> torch.Tensor:
    """(1, samples): 40 frames."""
    return torch.from_numpy(read_speech()[: 40 * 320].copy())[None]


def test_a_sample_waits_for_its_frame_and_the_overlap():
    # 20 ms, and a window of 320 less a hop of 80
    assert measure_wait(make_audio_codec()) == 320 + 240 == make_audio_codec().network.latency


def test_a_sound_is_heard_before_it_begins_by_no_more_than_the_delay():
    codec = make_audio_codec()
    # the encoder's window is small at its end, so that the last samples of a frame change little
    assert codec.network.latency - 160 < measure_onset(codec) < codec.network.latency


def test_a_codec_that_looks_ahead_is_found_out(codec, monkeypatch):
    step = codec.network.encoder.stft.step

    def look_ahead(x, state):
        return step(torch.roll(x, -320, dims=1), state)

    monkeypatch.setattr(codec.network.encoder.stft, "step", look_ahead)
    assert measure_onset(codec) > codec.network.latency


def test_steps_of_a_sound_codec_give_what_one_call_gives(samples):
    with torch.inference_mode():
        latents, decoded, flipped = compare_steps(make_audio_codec(), samples)
    assert latents < 1e-5 and decoded < 1e-5 and flipped == 0


def test_steps_that_give_something_else_are_noticed(codec, samples, monkeypatch):
    network = codec.network
    encode, decode = network.encoder.step_spectra, network.decode_step
    single = {"encode": 0.0, "decode": 0.0}

    def encode_step(spectra, state):
        y, state = encode(spectra, state)
        return (y * (1 + single["encode"]) if y.shape[1] == 1 else y), state

    def decode_step(codes, state):
        y, state = decode(codes, state)
        return (y + single["decode"] if codes.shape[2] == 1 else y), state

    monkeypatch.setattr(network.encoder, "step_spectra", encode_step)
    monkeypatch.setattr(network, "decode_step", decode_step)
    with torch.inference_mode():
        single["decode"] = 1e-3
        assert compare_steps(codec, samples)[1] == pytest.approx(1e-3, rel=0.05)
        single["encode"] = 0.5
        latents, _, flipped = compare_steps(codec, samples)
    assert latents > 0.1 and 0 < flipped <= 40


def test_what_sessions_make_step_by_step_is_as_long_and_in_time(samples):
    times: tuple[list[float], list[float]] = [], []
    codec = make_audio_codec()
    x = samples[0, :5000]
    with torch.inference_mode():
        found = time_steps(codec, x, times)
        expected = codec.network.reconstruct(x[None])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert len(times[0]) == len(times[1]) == 5000 // 320 + 2
    assert min(times[0] + times[1]) > 0


@pytest.mark.parametrize("late_ms", [-7, 0, 3, 12])
def test_a_lag_is_found_to_the_millisecond(late_ms):
    x = torch.from_numpy(read_speech()[: 2 * RATE].copy())
    assert find_lag(x, 0.5 * torch.roll(x, 16 * late_ms), RATE) == pytest.approx(late_ms / 1000)
    assert find_lag(x[:3], x[:3], RATE) == 0


def test_the_report_adds_up(codec, manifest):
    before = torch.get_num_threads()
    found = evaluate_codec_streaming(codec, read_manifest(manifest))
    assert torch.get_num_threads() == before and found.machine["threads"] == 1
    assert found.passed and found.num_files == 1
    table = found.to_json()
    assert table["frames"] == len(found.encode_times_s)
    assert table["frames"] * 0.02 == pytest.approx(table["audio_s"], abs=0.05)
    spent = found.encode_times_s.sum() + found.decode_times_s.sum()
    assert table["round_trip_times_real_time"] == pytest.approx(
        0.02 * table["frames"] / spent, abs=0.01
    )
    assert (table["latency_computed_ms"], table["latency_wait_ms"]) == (35.0, 35.0)
    assert table["parameters"] == sum(p.numel() for p in codec.network.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"latent_difference": 2e-5},
        {"sample_difference": 2e-5},
        {"flipped_frames": 3},
        {"wait_s": 0.036},
        {"onset_s": 0.036},
        {"latency_s": 0.041},
    ],
)
def test_one_figure_over_its_limit_is_enough_to_fail(change):
    figures = {
        "codec": "x",
        "codec_hash": "",
        "parameters": 1,
        "frame_s": 0.02,
        "num_files": 1,
        "audio_s": 40.0,
        "frames": 2000,
        "flipped_frames": 2,
        "latent_difference": 1e-5,
        "sample_difference": 1e-5,
        "encode_times_s": np.ones(1),
        "decode_times_s": np.ones(1),
        "latency_s": 0.035,
        "wait_s": 0.035,
        "onset_s": 0.03,
        "lag_s": 0.0,
        "machine": {},
    }
    assert CodecStreaming(**figures).passed
    assert not CodecStreaming(**(figures | change)).passed


def test_the_command_prints_figures_or_json(manifest, tmp_path, capsys):
    tables = {"codec": to_dict(CodecConfig.tiny())}
    save_model(tmp_path / "toy", "codec", "", tables, make_codec().state_dict())
    command = ["evaluate", "codec-streaming", str(manifest)]
    command += ["--model", str(tmp_path / "toy"), "--limit", "1"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    (tmp_path / "a.wav").unlink()
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "a: " in printed.err and "delay: 35 ms by its sizes (limit 40)" in printed.out


def test_live_steps_that_give_something_else_are_noticed(codec, samples, monkeypatch):
    push = EncoderSession.push

    def flip(session, x):
        codes = push(session, x)
        return codes ^ 1 if session.num_samples == 3 * 320 else codes

    monkeypatch.setattr(EncoderSession, "push", flip)
    with torch.inference_mode():
        assert compare_steps(codec, samples)[1:] == (pytest.approx(0.0, abs=1e-5), 1)
    monkeypatch.undo()
    decode = DecoderSession.push
    monkeypatch.setattr(DecoderSession, "push", lambda session, x: decode(session, x) + 0.25)
    with torch.inference_mode():
        latents, decoded, flipped = compare_steps(codec, samples)
    assert latents < 1e-5 and decoded == pytest.approx(0.25, abs=1e-4) and flipped == 0
