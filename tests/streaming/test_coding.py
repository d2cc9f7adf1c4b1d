"""The codec's sessions: any cut of a stream gives the same codes and samples, to the last bit."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from audiossm.errors import (
    AudioError,
    ConfigError,
    ModelError,
    SessionError,
    ShapeError,
    SnapshotError,
)
from audiossm.streaming import AudioCodec, DecoderSession, EncoderSession
from contract import random_split
from tiny_model import make_transcriber, read_speech
from toy_codec import make_audio_codec, make_codec

CODEC = make_audio_codec()
FRAME = 320


def make_stereo(num_samples: int) -> NDArray[np.float32]:
    """(2, num_samples): two stretches of a recording."""
    return read_speech()[8000 : 8000 + 2 * num_samples].reshape(2, -1)


def cut(array: np.ndarray, seed: int) -> list[np.ndarray]:
    """Pieces along the last dimension, some of them empty."""
    sizes = random_split(array.shape[-1], random.Random(seed))
    ends = np.cumsum(sizes)[:-1].tolist()
    return [array[..., :0], *np.split(array, ends, axis=-1), array[..., :0]]


def encode(session: EncoderSession, pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*map(session.push, pieces), session.finish()], axis=2)


def decode(session: DecoderSession, pieces: list[np.ndarray], **kwargs) -> np.ndarray:
    parts = [session.push(piece, **kwargs) for piece in pieces]
    return np.concatenate([*parts, session.finish()], axis=1)


@pytest.mark.parametrize("frames_per_step", [1, 7])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_any_cut_gives_the_same_codes(rate, frames_per_step):
    audio = make_stereo(rate // 2 + 137)

    def begin() -> EncoderSession:
        return CODEC.encoder_session(
            sample_rate=rate, channels=2, num_groups=3, frames_per_step=frames_per_step
        )

    whole = encode(begin(), [audio])
    assert all(len(np.unique(group)) > 5 for group in whole[0])
    for seed in range(4):
        session = begin()
        assert np.array_equal(encode(session, cut(audio, seed)), whole), seed
        assert session.num_samples == -(-audio.shape[1] * 16000 // rate)
        assert whole.shape == (2, 3, -(-(session.num_samples + 240) // FRAME))


@pytest.mark.parametrize("frames_per_step", [1, 4, 60])
def test_any_cut_gives_the_same_samples(frames_per_step):
    codes = CODEC.encode(make_stereo(20000)).codes[:, :2]
    lost = np.random.default_rng(1).random(codes.shape[2]) < 0.2

    def begin() -> DecoderSession:
        return CODEC.decoder_session(channels=2, frames_per_step=frames_per_step)

    whole = decode(begin(), [codes])
    assert whole.shape == (2, codes.shape[2] * FRAME - 240) and whole.std() > 1e-3
    concealed = np.concatenate([(s := begin()).push(codes, lost=lost), s.finish()], axis=1)
    assert np.abs(concealed - whole).max() > 1e-3
    for seed in range(4):
        pieces = cut(codes, seed)
        assert np.array_equal(decode(begin(), pieces), whole), seed
        session, parts, at = begin(), [], 0
        for piece in pieces:
            gone = lost[at : at + piece.shape[2]]
            at += piece.shape[2]
            parts.append(session.push(piece, lost=gone))
        assert np.array_equal(np.concatenate([*parts, session.finish()], axis=1), concealed)


def test_frame_by_frame_is_the_whole_within_rounding():
    audio = make_stereo(16000)
    codes = CODEC.encode(audio).codes
    steps = encode(CODEC.encoder_session(channels=2), [audio])
    assert np.array_equal(steps, codes)
    samples = decode(CODEC.decoder_session(channels=2), [codes])
    whole = decode(CODEC.decoder_session(channels=2, frames_per_step=50), [codes])
    np.testing.assert_allclose(samples, whole, atol=1e-5)


def test_a_session_is_what_the_network_does():
    audio = make_stereo(10 * FRAME - 240)
    network = CODEC.network
    padded = torch.nn.functional.pad(torch.from_numpy(audio.copy()), (0, 240))
    codes = CODEC.encode(audio)
    assert np.array_equal(codes.codes, network.encode(padded).numpy())
    heard = network.reconstruct(torch.from_numpy(audio.copy()))
    np.testing.assert_allclose(CODEC.decode(codes), heard.numpy(), atol=1e-5)


def test_rows_do_not_touch_each_other():
    audio = make_stereo(9000)
    both = CODEC.encode(audio)
    rows = [CODEC.encode(row[np.newaxis]) for row in audio]
    assert np.array_equal(both.codes, np.concatenate([row.codes for row in rows]))
    alone = np.concatenate([CODEC.decode(row) for row in rows])
    np.testing.assert_allclose(CODEC.decode(both), alone, atol=1e-5)
    lost = np.zeros((2, both.codes.shape[2]), bool)
    lost[1, 5:9] = True
    samples = CODEC.decoder_session(channels=2).push(both.codes, lost=lost)
    np.testing.assert_allclose(samples[0, :9000], alone[0], atol=1e-5)
    assert np.abs(samples[1, :9000] - alone[1]).max() > 1e-3


@pytest.mark.parametrize("length", [0, 1, 79, 80, 81, 319, 320, 400, 5000])
@pytest.mark.parametrize("rate", [16000, 22050])
def test_what_comes_out_is_as_long_as_what_went_in(length, rate):
    codes = CODEC.encode(make_stereo(length), sample_rate=rate)
    expected = -(-length * 16000 // rate)
    assert codes.num_samples == expected and codes.duration_s == expected / 16000
    assert CODEC.decode(codes).shape == (2, expected)
    assert CODEC.decode(codes, num_groups=1).shape == (2, expected)


def test_samples_come_out_in_time():
    click = np.zeros((1, 32000), np.float32)
    click[0, 12345] = 1.0
    heard = CODEC.decode(CODEC.encode(click))
    # causal, and a frame at most ahead: a codec of random weights knows no more
    quiet = CODEC.decode(CODEC.encode(np.zeros_like(click)))
    changed = np.flatnonzero(np.abs(heard - quiet)[0] > 1e-4)
    assert 12345 - FRAME - 240 < changed[0] <= 12345 + FRAME


def test_snapshots_go_on_exactly():
    audio = make_stereo(12000)
    whole = encode(CODEC.encoder_session(sample_rate=24000, channels=2, num_groups=2), [audio])
    session, parts = CODEC.encoder_session(sample_rate=24000, channels=2, num_groups=2), []
    for piece in cut(audio, 3):
        parts.append(session.push(piece))
        session = EncoderSession.restore(CODEC, session.snapshot())
    parts.append(session.finish())
    assert np.array_equal(np.concatenate(parts, axis=2), whole)
    assert EncoderSession.restore(CODEC, session.snapshot()).finished

    heard = decode(CODEC.decoder_session(channels=2, frames_per_step=3), [whole])
    decoder, parts = CODEC.decoder_session(channels=2, frames_per_step=3), []
    for piece in cut(whole, 4):
        parts.append(decoder.push(piece))
        decoder = DecoderSession.restore(CODEC, decoder.snapshot())
    parts.append(decoder.finish())
    assert np.array_equal(np.concatenate(parts, axis=1), heard)


def test_forks_go_their_own_ways():
    audio = make_stereo(9000)
    session = CODEC.encoder_session(channels=2)
    first = session.push(audio[:, :4000])
    fork = session.fork()
    other = fork.push(-audio[:, 4000:])
    rest = session.push(audio[:, 4000:])
    assert not np.array_equal(rest, other)
    whole = CODEC.encoder_session(channels=2).push(audio)
    assert np.array_equal(np.concatenate([first, rest], axis=2), whole)


def test_the_state_does_not_grow():
    session = CODEC.encoder_session()
    sizes = set()
    for _ in range(5):
        session.push(make_stereo(4000)[:1])
        sizes.add(len(session.snapshot()))
    assert max(sizes) - min(sizes) < 64


def test_a_snapshot_of_another_session_is_refused():
    data = CODEC.encoder_session().snapshot()
    with pytest.raises(SnapshotError, match="session 'encoder', but this session has 'decoder'"):
        DecoderSession.restore(CODEC, data)
    with pytest.raises(SnapshotError, match="model '0*3', but this session has '0*4'"):
        EncoderSession.restore(make_audio_codec(4), data)
    with pytest.raises(SnapshotError):
        EncoderSession.restore(CODEC, make_transcriber().session().snapshot())
    with pytest.raises(SnapshotError, match="damaged or cut short"):
        EncoderSession.restore(CODEC, data[:-40] + data[-39:])


def test_silence_and_clipping_stay_finite():
    for level in (0.0, 1.0, -50.0):
        audio = np.full((1, 9000), level, np.float32)
        heard = CODEC.decode(CODEC.encode(audio))
        assert np.isfinite(heard).all()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(10, np.float32), r"takes \(2, samples\) float, got float32 of shape \(10,\)"),
        (np.zeros((1, 10), np.float32), r"shape \(1, 10\)"),
        (np.zeros((2, 10), np.int16), "got int16"),
        (np.array([[0.0] * 8, [0.0] * 7 + [np.nan]]), r"sample nan at 0\.007 s is not a finite"),
        (np.full((2, 8), 1e6), r"sample 1e\+06 at 0\.000 s is far outside"),
    ],
)
def test_bad_samples_are_refused_and_change_nothing(samples, message):
    audio = make_stereo(3000)
    session = CODEC.encoder_session(sample_rate=1000, channels=2)
    with pytest.raises(AudioError, match=message):
        session.push(samples)
    assert np.array_equal(
        encode(session, [audio]),
        encode(CODEC.encoder_session(sample_rate=1000, channels=2), [audio]),
    )


@pytest.mark.parametrize(
    ("codes", "lost", "message"),
    [
        (np.zeros((1, 4, 2), int), None, r"takes codes \(2, groups, frames\), got \(1, 4, 2\)"),
        (np.zeros((2, 5, 2), int), None, "codes have 5 groups, but this codec has 4: were they"),
        (np.full((2, 4, 2), 1000), None, "lie between 1000 and 1000"),
        (np.zeros((2, 4, 2)), None, "int64, got"),
        (np.zeros((2, 4, 2), int), np.zeros(3, bool), "a bool for each of the 2 frames"),
        (np.zeros((2, 4, 2), int), np.zeros(2), "float64, expected a bool"),
    ],
)
def test_bad_codes_are_refused_and_change_nothing(codes, lost, message):
    good = CODEC.encode(make_stereo(3000)).codes
    session = CODEC.decoder_session(channels=2)
    with pytest.raises(ShapeError, match=message):
        session.push(codes, lost=lost)
    whole = decode(CODEC.decoder_session(channels=2), [good])
    assert np.array_equal(decode(session, [good]), whole)


def test_a_finished_session_is_told_so():
    session, decoder = CODEC.encoder_session(), CODEC.decoder_session()
    session.finish()
    decoder.finish()
    for use in (
        lambda: session.push(make_stereo(9)[:1]),
        session.finish,
        lambda: decoder.push(np.zeros((1, 4, 1), int)),
        decoder.finish,
    ):
        with pytest.raises(SessionError, match="this session is finished"):
            use()


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="5 groups: codec 'toy' has 1 to 4"):
        CODEC.encoder_session(num_groups=5)
    with pytest.raises(ConfigError, match="channels is 0, must be 1 to 64"):
        CODEC.decoder_session(channels=0)
    with pytest.raises(ConfigError, match="frames_per_step is 0"):
        CODEC.encoder_session(frames_per_step=0)
    with pytest.raises(AudioError, match="sample rate 0 Hz"):
        CODEC.encoder_session(sample_rate=0)


def test_codes_of_another_codec_are_refused_with_both_hashes():
    other = make_audio_codec(4)
    codes = other.encode(make_stereo(2000))
    with pytest.raises(ModelError) as caught:
        CODEC.decode(codes)
    assert str(caught.value) == (
        f"made by codec 'toy' with codes of hash {other.codes_hash}, but those of this one, "
        f"'toy', have {CODEC.codes_hash}: its codes mean other sounds"
    )


def test_a_decoder_that_was_trained_on_decodes_old_codes_under_any_name():
    codes = CODEC.encode(make_stereo(3000))
    network = make_codec()
    network.decoder.head.bias += 0.1
    later = AudioCodec(network, name="later", model_hash="1" * 32)
    assert np.abs(later.decode(codes) - CODEC.decode(codes)).max() > 1e-4


def test_samples_without_channels_are_refused():
    with pytest.raises(AudioError, match=r"takes \(1, samples\) float, got .* shape \(3000,\)"):
        CODEC.encode(read_speech()[:3000])


def test_codes_of_other_sizes_are_refused():
    codes = CODEC.encode(make_stereo(3000))
    for field, value in (("sample_rate", 8000), ("num_codes", 1024), ("num_groups", 5)):
        form = dataclasses.replace(codes.form, **{field: value})
        with pytest.raises(ModelError, match="codes of other sizes than those of codec 'toy'"):
            CODEC.decode(dataclasses.replace(codes, form=form))
