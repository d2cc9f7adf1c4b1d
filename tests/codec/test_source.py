"""The source: pitches in whole numbers, harmonics that no cut disturbs."""

import math
from dataclasses import replace

import pytest
import torch

from audiossm.checkpoint import ModelFolder, save_model, shrink_model
from audiossm.codec import Codec, LoadedCodec, PitchConfig, SourceConfig
from audiossm.codec.pitch import Pitch, PitchReader
from audiossm.codec.source import Source
from audiossm.config import to_dict
from audiossm.errors import ConfigError
from contract import assert_streaming_equals_offline
from tiny_model import read_speech
from toy_codec import make_codec

FRAME, HOP, RATE, LATENT = 320, 80, 16000, 12
SMALL = SourceConfig(pitch=PitchConfig(context=3, d_hidden=32))


@pytest.fixture
def reader() -> PitchReader:
    return PitchReader(SMALL.pitch, LATENT, hops=4).requires_grad_(False)


@pytest.fixture
def source() -> Source:
    made = Source(SMALL, LATENT, window=320, hop=HOP, hops=4, sample_rate=RATE)
    return made.requires_grad_(False)


@pytest.fixture
def codec() -> Codec:
    plain = make_codec()
    decoder = replace(plain.config.decoder, source=SMALL)
    codec = Codec(replace(plain.config, decoder=decoder)).requires_grad_(False)
    codec.load_state_dict(plain.state_dict(), strict=False)
    return codec


def draw_values(*shape: int) -> torch.Tensor:
    return torch.randint(-4, 5, shape) / 4


def sound(source: Source, hertz: float, hops: int, phase: float = 0.0) -> torch.Tensor:
    pitch = source.reader.place(torch.full((1, hops), hertz), torch.ones(1, hops))
    return source.sound(pitch, torch.full((1,), phase))[0][0]


def test_logits_are_the_same_to_the_last_bit_however_frames_come(reader):
    x = draw_values(2, 40, LATENT)
    whole, _ = reader.step(x, reader.init_state(2))
    for sizes in ([1] * 40, [7, 1, 30, 2]):
        state, pieces = reader.init_state(2), []
        for piece in x.split(sizes, dim=1):
            logits, state = reader.step(piece, state)
            pieces.append(logits)
        assert torch.equal(torch.cat(pieces, dim=1), whole)
    backwards = reader.step(x.double().flip(0).float(), reader.init_state(2))[0].flip(0)
    assert torch.equal(backwards, whole)


def test_sums_stay_exact_at_the_largest_size_and_the_wildest_weights():
    reader = PitchReader(PitchConfig(d_hidden=256), 32, hops=4).requires_grad_(False)
    for layer in reader.linears():
        layer.weight.fill_(9.0)
        layer.bias.fill_(99.0)
    logits, _ = reader.step(torch.ones(1, 6, 32), reader.init_state(1))
    assert 2048 * logits.abs().max() < 2**24
    assert torch.equal(logits, reader.double().step(torch.ones(1, 6, 32), reader.init_state(1))[0])


@pytest.mark.parametrize("exact", [True, False])
def test_a_shrunk_codec_reads_the_same_pitches_to_the_last_bit(codec, tmp_path, exact):
    for layer in codec.decoder.source.reader.linears():
        layer.weight[::7] *= 30  # some are clipped
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "large", "codec", "", tables, codec.state_dict())
    large = ModelFolder.open(tmp_path / "large")
    # as any other weight, they would be other numbers
    shrink_model(tmp_path / "small", large, codec.steps if exact else {})
    x, logits = draw_values(1, 40, codec.config.quantiser.latent_dim), {}
    for name in ("large", "small"):
        reader = LoadedCodec.load(tmp_path / name).network.decoder.source.reader
        logits[name] = reader.step(x, reader.init_state(1))[0]
    assert torch.equal(logits["small"], logits["large"]) == exact


def test_the_gradient_passes_whole_numbers():
    reader = PitchReader(SMALL.pitch, LATENT, hops=4)
    x = draw_values(1, 8, LATENT).requires_grad_()
    reader.step(x, reader.init_state(1))[0].square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in reader.parameters())


@pytest.mark.parametrize("hertz", [60.0, 61.3, 147.1, 333.0, 470.0])
def test_a_pitch_between_bins_is_found(reader, hertz):
    config = reader.config
    bins = torch.arange(config.num_bins)
    near = -0.5 * (bins - config.bins(torch.tensor(hertz))).square()
    pitch = reader.choose(torch.cat([near, torch.tensor([3.0])]).view(1, 1, -1))
    found = config.frequencies()[pitch.position].item()
    assert abs(1200 * math.log2(found / hertz)) < 2.5
    assert pitch.voicing.item() == pytest.approx(torch.tensor(3.0).sigmoid().item())
    assert torch.equal(pitch.position, reader.place(torch.tensor([[hertz]]), torch.ones(1, 1))[0])


@pytest.mark.parametrize("hertz", [75.0, 120.0, 433.0])
def test_the_sound_is_the_sum_of_its_harmonics(source, hertz):
    found = sound(source, hertz, 50)
    config = source.config.pitch
    exact = config.frequencies()[source.reader.place(*torch.full((2, 1, 1), hertz)).position].item()
    time = torch.arange(1, len(found) + 1, dtype=torch.float64) / RATE
    count = int(source.config.highest_hz / exact)
    # a sample's share of a turn is rounded to 2^-24
    exact = round(exact / RATE * 2**24) / 2**24 * RATE
    wanted = sum((2 * math.pi * h * exact * time).cos() for h in range(1, count + 1))
    wanted *= math.sqrt(8 / 3) * math.sqrt(2 / count)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-3)


def test_it_has_about_unit_magnitude_at_any_pitch(source):
    for hertz in (65.0, 130.0, 260.0):
        spectra = source.stft(sound(source, hertz, 100).unsqueeze(0))
        real, imaginary = spectra[0, 8:].chunk(2, dim=-1)
        power = (real.square() + imaginary.square())[:, 4:150].mean()
        assert 0.7 < power < 1.4


def test_without_a_voice_there_is_silence(source):
    pitch = Pitch(torch.full((1, 9), 400), torch.zeros(1, 9))
    samples, phase = source.sound(pitch, torch.zeros(1))
    assert samples.abs().max() == 0
    assert phase.item() == 0


def test_a_phase_is_kept_exactly_for_hours(source):
    hops = 200 * 60
    pitch = Pitch(torch.full((1, hops), 777), torch.ones(1, hops))
    phase = torch.zeros(1)
    for _ in range(60):
        _, phase = source.sound(pitch, phase)
    assert phase.item() == (60 * hops * HOP * int(source.speeds[777])) % 2**24


def test_after_a_hop_without_a_voice_the_phase_begins_anew(source):
    position = torch.randint(200, 1000, (2, 40))
    voicing = torch.ones(2, 40)
    voicing[0, 9] = voicing[0, 21] = voicing[1, 5] = 0.4
    whole, phase = source.sound(Pitch(position, voicing), torch.tensor([3.0e6, 9.0e6]))
    for row, start in ((0, 10), (0, 22), (1, 6)):
        rest = Pitch(position[row : row + 1, start:], voicing[row : row + 1, start:])
        samples, last = source.sound(rest, torch.zeros(1))
        assert torch.equal(samples[0], whole[row, HOP * start :])
        assert last.item() == phase[row].item()


def test_any_chunking_gives_the_offline_result(codec):
    x = draw_values(2, 60, codec.decoder.latent_dim)
    assert_streaming_equals_offline(codec.decoder, x, time=1, trials=6)


def test_the_source_is_heard(codec):
    x = draw_values(1, 30, codec.decoder.latent_dim)
    state = codec.decoder.init_state(1)
    hops = torch.full((1, 120), 300), torch.full((1, 120), 1200)
    low, high = (
        codec.decoder.spectra_step(x, state, Pitch(p, torch.ones(1, 120)))[0] for p in hops
    )
    assert (low - high).abs().max() > 1e-3
    quiet = codec.decoder.spectra_step(x, state, Pitch(hops[0], torch.zeros(1, 120)))[0]
    plain = make_codec().decoder
    assert torch.allclose(quiet, plain.spectra_step(x, plain.init_state(1))[0], atol=1e-6)


def test_a_stream_told_a_pitch_can_read_the_next_one(codec):
    x = draw_values(1, 12, codec.decoder.latent_dim)
    source, state = codec.decoder.source, codec.decoder.source.init_state(1)
    read = source.reader.choose(source.reader.step(x, state.frames)[0])
    whole, end = source.step(x, state)
    told, between = source.step(x[:, :5], state, Pitch(*(part[:, :20] for part in read)))
    rest, last = source.step(x[:, 5:], between)
    torch.testing.assert_close(torch.cat([told, rest], dim=1), whole, rtol=0, atol=1e-5)
    assert torch.equal(last.frames, end.frames) and torch.equal(last.phase, end.phase)


def test_speech_goes_through_whole(codec):
    speech = torch.from_numpy(read_speech()[: 20 * FRAME].copy()).unsqueeze(0)
    decoded = codec.reconstruct(speech)
    assert decoded.shape == speech.shape
    assert decoded.isfinite().all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: PitchConfig(d_hidden=257), "must lie between 1 and 256"),
        (lambda: PitchConfig(context=0), "must be at least 1, 3 and 1"),
        (lambda: SourceConfig(highest_hz=400.0), "must be at least the highest pitch, 470"),
    ],
)
def test_other_sizes_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        config()
