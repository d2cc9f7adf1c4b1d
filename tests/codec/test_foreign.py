"""Mimi, EnCodec and DAC by transformers do what our codecs do, as far as they can."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audiossm.audio import resample
from audiossm.codec import ForeignCodec, load_codec
from audiossm.errors import ConfigError, DependencyError, ModelError, ShapeError
from audiossm.streaming import DecoderSession, EncoderSession
from foreign_codecs import KINDS, save_foreign_codec

SPEECH = Path(__file__).parents[1] / "speech"


def test_without_the_package_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match=r"pip install 'audiossm\[codecs\]'"):
        load_codec("transformers:kyutai/mimi")


def needs_transformers():
    pytest.importorskip("transformers", reason="the extra 'codecs' is not installed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    needs_transformers()
    place = tmp_path_factory.mktemp("codecs")
    return {kind: save_foreign_codec(place / kind, kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def codec(request, folders) -> ForeignCodec:
    loaded = load_codec(f"transformers:{folders[request.param]}")
    assert isinstance(loaded, ForeignCodec)
    return loaded


def test_codes_and_sound_are_those_of_transformers(codec):
    coded = codec.encode(SPEECH / "kettle.flac", num_groups=3)
    size, groups = codec.config.frame_size, codec.config.quantiser.num_groups
    assert coded.codes.shape == (1, 3, -(-coded.num_samples // size))
    assert all(len(np.unique(group)) > 3 for group in coded.codes[0])
    # the package's own way there and back
    model, kind = codec.network.model, codec.config.kind
    import soundfile

    samples, rate = soundfile.read(SPEECH / "kettle.flac", dtype="float32", always_2d=True)
    x = resample(torch.from_numpy(samples.T.copy()), rate, codec.config.sample_rate)
    x = torch.nn.functional.pad(x, (0, coded.codes.shape[2] * size - x.shape[1])).unsqueeze(0)
    with torch.no_grad():
        if kind == "encodec":
            codes = model.encode(x, bandwidth=3.0).audio_codes[0]
            sound = model.decode(codes.unsqueeze(0), [None]).audio_values
        else:
            codes = model.encode(x).audio_codes
            sound = model.decode(audio_codes=codes).audio_values
    whole = codec.encode(SPEECH / "kettle.flac")
    assert codes.shape == (1, groups, whole.codes.shape[2])
    assert np.array_equal(whole.codes, codes.numpy())
    assert np.array_equal(coded.codes, whole.codes[:, :3])
    ours = codec.decode(whole)
    assert ours.shape == (1, whole.num_samples)
    shared = min(ours.shape[1], sound.numel())
    assert shared > ours.shape[1] - size
    assert np.array_equal(ours[0, :shared], sound.flatten().numpy()[:shared])


def test_a_stream_of_codes_is_near_what_decoding_whole_gives(codec):
    samples = 0.1 * np.random.default_rng(0).standard_normal((2, 24000)).astype(np.float32)
    coded = codec.encode(samples)
    whole = codec.decode(coded)

    def run(cuts: list[int], snapshot: bool = False) -> np.ndarray:
        session, pieces = DecoderSession(codec, channels=2, frames_per_step=8), []
        for codes in np.split(coded.codes, cuts, axis=2):
            pieces.append(session.push(codes))
            if snapshot:
                session = DecoderSession.restore(codec, session.snapshot())
        return np.concatenate([*pieces, session.finish()], axis=1)[:, : coded.num_samples]

    streamed = run([5])
    error = np.abs(streamed - whole)
    size = codec.config.frame_size
    if codec.config.kind != "dac":  # which looks ahead
        assert error[:, : 8 * size].max() < 1e-4 * whole.std()
    assert np.sqrt((error**2).mean()) < 0.5 * whole.std()
    assert np.array_equal(streamed, run([1, 2, 7], snapshot=True))


def test_what_a_codec_does_not_have_costs_a_line(codec, tmp_path):
    most = codec.config.quantiser.num_groups
    with pytest.raises(ConfigError, match=f"{most + 1} groups: codec 'transformers:.*has 1 to"):
        codec.encode(SPEECH / "kettle.flac", num_groups=most + 1)
    with pytest.raises(ConfigError, match="encodes recordings whole, not as streams"):
        EncoderSession(codec)
    with pytest.raises(ConfigError, match="runs by torch alone"):
        ForeignCodec.load(codec.name, backend="onnx")
    with pytest.raises(ShapeError, match="codes must be 0 to"):
        DecoderSession(codec).push(np.full((1, 1, 4), 5000))


def test_codes_are_tied_to_the_weights_that_made_them(folders, tmp_path):
    codec = load_codec(f"transformers:{folders['dac']}")
    other = load_codec(f"transformers:{save_foreign_codec(tmp_path / 'dac', 'dac', seed=1)}")
    coded = codec.encode(np.zeros((1, 4000), np.float32))
    assert codec.decode(coded).shape == (1, 4000)
    with pytest.raises(ModelError, match="its codes mean other sounds"):
        other.decode(coded)


def test_what_is_no_codec_costs_a_line(tmp_path):
    needs_transformers()
    from transformers import EncodecConfig, GPT2Config

    with pytest.raises(ModelError, match="transformers can't load it") as caught:
        load_codec(f"transformers:{tmp_path}/nowhere")
    assert "\n" not in str(caught.value)
    GPT2Config().save_pretrained(tmp_path / "text")
    with pytest.raises(ModelError, match="'gpt2' is none of the codecs mimi, encodec, dac"):
        load_codec(f"transformers:{tmp_path}/text")
    EncodecConfig(normalize=True, chunk_length_s=1.0).save_pretrained(tmp_path / "scaled")
    with pytest.raises(ModelError, match="take the one of 24 kHz"):
        load_codec(f"transformers:{tmp_path}/scaled")
