"""A codec's compiled loops: as exact as torch, the same however a stream is cut, and movable."""

import logging
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from audiossm import AudioCodec, Transcriber
from audiossm.codec import Codec, CodecConfig
from audiossm.codec.detail import DetailConfig
from audiossm.codec.encoder import EncoderConfig
from audiossm.codec.loops import make_decode_loop, make_encode_loop
from audiossm.codec.pitch import PitchConfig
from audiossm.codec.quantiser import QuantiserConfig
from audiossm.codec.source import SourceConfig
from audiossm.errors import DeviceError, ModelError
from audiossm.graphs import Ways
from audiossm.loops import LoopState
from audiossm.nn import named_tensors
from audiossm.rounding import restore_rows, round_rows
from audiossm.streaming import DecoderSession, EncoderSession
from contract import random_split
from tiny_model import make_transcriber, read_speech
from toy_codec import make_audio_codec

SPEECH = read_speech()
PROFILE = "numba-float32-cpu"


@cache
def load_codec(backend: str) -> AudioCodec:
    return AudioCodec.load(backend=backend)


@cache
def make_odd_codec() -> Codec:
    """A codec of other sizes than the shipped one, whose weights are bytes."""
    tiny = CodecConfig.tiny()
    pitch = PitchConfig(context=3, d_hidden=20, num_bins=40)
    config = CodecConfig(
        encoder=EncoderConfig(
            **{"window": 400, "hop": 80, "num_mels": 20, "spectra": "magnitude", "d_model": 30},
            **{"d_hidden": 44, "num_blocks": 1, "kernel": 3, "ssm_head_dim": 15, "ssm_state": 12},
        ),
        detail=DetailConfig(num_bins=50, longest_lag=90, d_model=22, d_hidden=26, kernel=4),
        quantiser=QuantiserConfig(num_groups=3, levels=(8, 5, 3)),
        decoder=replace(
            tiny.decoder, upsample=2, hop=160, window=480, source=SourceConfig(pitch=pitch)
        ),
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        codec = Codec(config).requires_grad_(False)
        for name, weight in codec.named_parameters():
            if weight.dim() == 2 and not name.startswith("decoder.source"):
                noise = torch.randn_like(weight) * weight.shape[1] ** -0.5
                weight.copy_(restore_rows(*round_rows(noise)))
            elif weight.dim() == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    return codec


def list_codecs() -> dict[str, Codec]:
    return {"shipped": load_codec("torch").network, "odd": make_odd_codec()}


def make_audio(num_samples: int) -> Tensor:
    """Speech, digital silence in its middle, and noise at the end."""
    x = torch.from_numpy(np.resize(SPEECH, num_samples)).unsqueeze(0)
    x[:, num_samples // 3 : num_samples // 2] = 0.0
    x[:, -2000:] = 0.5 * torch.randn(2000)
    return x


@pytest.mark.parametrize("name", ["shipped", "odd"])
def test_frames_one_by_one_are_what_one_call_by_torch_gives(name):
    network = list_codecs()[name]
    samples = make_audio(320 * 120)
    encoder = LoopState(make_encode_loop(network, with_latent=True), network.init_encoding(1))
    codes, latents = encoder.step(samples)
    with torch.inference_mode():
        expected, state = network.narrow_step(samples, network.init_encoding(1))
        expected_codes = network.quantiser.encode(expected)
    assert (latents - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(codes, expected_codes)
    assert_near(encoder.read(), state)

    decoder = LoopState(make_decode_loop(network.decoder), network.decoder.init_state(1))
    values = network.quantiser.decode(codes)
    (decoded,) = decoder.step(values)
    with torch.inference_mode():
        expected, state = network.decoder.step(values, network.decoder.init_state(1))
    assert expected.abs().max() > 0.01
    assert (decoded - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert_near(decoder.read(), state)
    assert torch.equal(decoder.read().source.phase, state.source.phase)


def assert_near(found: object, expected: object) -> None:
    for (name, ours), (_, theirs) in zip(
        named_tensors(found), named_tensors(expected), strict=True
    ):
        assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, float(theirs.abs().max())), name


def test_any_cut_and_any_frames_per_step_give_the_same_bits():
    codec, samples = load_codec("auto"), make_audio(320 * 40).numpy()
    codes, sounds = [], []
    for trial, frames_per_step in enumerate((1, 1, 4, 7)):
        encoder = codec.encoder_session(frames_per_step=frames_per_step)
        decoder = codec.decoder_session(frames_per_step=frames_per_step)
        pieces = np.split(
            samples, np.cumsum(random_split(samples.shape[1], random.Random(trial)))[:-1], axis=1
        )
        heard = [encoder.push(piece) for piece in pieces]
        codes.append(np.concatenate([*heard, encoder.finish()], axis=2))
        sounds.append(np.concatenate([decoder.push(codes[-1]), decoder.finish()], axis=1))
        assert encoder.profile == decoder.profile == PROFILE
        np.testing.assert_array_equal(codes[-1], codes[0])
        np.testing.assert_array_equal(sounds[-1], sounds[0])


def test_rows_do_not_touch_each_other():
    codec = load_codec("numba")
    samples = make_audio(320 * 20).numpy()
    both = np.concatenate([samples, samples[:, ::-1]])
    encoder, decoder = codec.encoder_session(channels=2), codec.decoder_session(channels=2)
    codes = encoder.push(both)
    sound = decoder.push(codes)
    for row in range(2):
        alone = codec.encoder_session().push(both[row : row + 1].copy())
        np.testing.assert_array_equal(codes[row : row + 1], alone)
        np.testing.assert_array_equal(sound[row : row + 1], codec.decoder_session().push(alone))


@pytest.mark.parametrize(
    "first, second", [("numba", "torch"), ("torch", "numba"), ("numba", "onnx")]
)
def test_a_snapshot_moves_from_path_to_path(first, second, caplog):
    samples = make_audio(320 * 50).numpy()
    whole = load_codec("torch").encoder_session().push(samples)
    sound = load_codec("torch").decoder_session().push(whole)
    encoder, decoder = load_codec(first).encoder_session(), load_codec(first).decoder_session()
    # in the middle of speech, and of a frame
    codes = [encoder.push(samples[:, :3300])]
    heard = [decoder.push(codes[0])]
    saved = encoder.snapshot(), decoder.snapshot()
    encoder.push(samples[:, 3300:]), decoder.push(whole[:, :, 10:])  # it is left alone
    with caplog.at_level(logging.INFO):
        encoder = EncoderSession.restore(load_codec(second), saved[0])
        decoder = DecoderSession.restore(load_codec(second), saved[1])
    codes.append(encoder.push(samples[:, 3300:]))
    heard.append(decoder.push(codes[1]))
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), whole)
    np.testing.assert_allclose(np.concatenate(heard, axis=1), sound, atol=1e-5, rtol=0)
    assert f"profile {first}-float32-cpu goes on as {second}-float32-cpu" in caplog.text


def test_forks_go_their_own_ways():
    codec, samples = load_codec("numba"), make_audio(320 * 30).numpy()
    session = codec.encoder_session()
    before = session.push(samples[:, :6400])
    fork = session.fork()
    other = fork.push(-samples[:, 6400:])
    rest = session.push(samples[:, 6400:])
    assert not np.array_equal(rest, other)
    whole = codec.encoder_session().push(samples)
    np.testing.assert_array_equal(np.concatenate([before, rest], axis=2), whole)


def test_a_model_without_loops_says_so_and_auto_does_without():
    toy = make_audio_codec()
    assert toy.encoder_session().profile == "torch-float32-cpu"
    shipped = load_codec("torch").config
    with pytest.raises(ModelError, match="aren't rows of bytes: the model wasn't shrunk"):
        AudioCodec(Codec(shipped), name="c", model_hash="0" * 32, backend="numba")
    with pytest.raises(ModelError, match="made of the encoder's frames alone"):
        AudioCodec(toy.network, name="c", model_hash="0" * 32, backend="numba")
    with pytest.raises(ModelError, match="its encoder has other features"):
        Transcriber(make_transcriber().network, name="t", model_hash="0" * 32, backend="numba")
    step = replace(toy.encoder_ways.step, make_loop=None)
    with pytest.raises(ModelError, match="step 'encode' has no compiled loop"):
        Ways(step, torch.device("cpu"), "numba")
    with pytest.raises(DeviceError, match="backend 'numba' runs on a CPU, not on cuda"):
        Ways(load_codec("torch").encoder_ways.step, torch.device("cuda"), "numba")
