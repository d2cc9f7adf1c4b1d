"""The codec: samples to codes and back, whole, in pieces, and from a model folder."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, DecoderConfig, LoadedCodec, QuantiserConfig
from audiossm.config import to_dict
from audiossm.errors import ConfigError, ModelError, ShapeError
from contract import assert_streaming_equals_offline, flat_tensors, random_split
from tiny_model import make_transcriber, read_speech
from toy_codec import make_codec

FRAME = 320


@pytest.fixture
def codec() -> Codec:
    return make_codec()


@pytest.fixture
def speech() -> torch.Tensor:
    """(2, 24 frames): two stretches of a recording."""
    return torch.from_numpy(read_speech()[: 48 * FRAME].copy()).view(2, -1)


@pytest.fixture
def folder(tmp_path, codec) -> Path:
    tables = {"codec": to_dict(codec.config)}
    save_model(tmp_path / "toy", "codec", "a line", tables, codec.state_dict())
    return tmp_path / "toy"


def test_any_chunking_gives_the_offline_result(codec, speech):
    assert codec(speech).std() > 1e-3
    assert_streaming_equals_offline(codec, speech, out_time=1, multiple=FRAME, trials=6)


def test_codes_do_not_depend_on_the_pieces(codec, speech):
    whole = codec.encode(speech)
    assert whole.shape == (2, 4, 24) and whole.dtype == torch.int64
    assert all(len(group.unique()) > 10 for group in whole.unbind(1))
    for seed in range(4):
        sizes = random_split(speech.shape[1], random.Random(seed), FRAME)
        state, pieces = codec.init_encoding(2), []
        for chunk in speech.split(sizes, dim=1):
            codes, state = codec.encode_step(chunk, state)
            pieces.append(codes)
        assert torch.equal(torch.cat(pieces, dim=2), whole), sizes


@pytest.mark.parametrize("groups", [1, 3, 4])
def test_codes_of_the_first_groups_decode_in_pieces_as_whole(codec, speech, groups):
    codes = codec.encode(speech)[:, :groups]
    whole = codec.decode(codes)
    assert whole.shape == speech.shape
    state, pieces = codec.decoder.init_state(2), []
    for chunk in codes.split([1, 5, 2, 16], dim=2):
        samples, state = codec.decode_step(chunk, state)
        pieces.append(samples)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_each_group_changes_what_is_heard(codec, speech):
    codes = codec.encode(speech)
    heard = [codec.decode(codes[:, :groups]) for groups in range(1, 5)]
    for fewer, more in zip(heard, heard[1:], strict=False):
        assert (fewer - more).abs().max() > 1e-3


def test_the_whole_way_is_encoding_then_decoding(codec, speech):
    torch.testing.assert_close(codec(speech), codec.decode(codec.encode(speech)))


def test_the_future_does_not_change_the_past(codec, speech):
    changed = speech.clone()
    changed[:, 10 * FRAME :] *= -0.5
    before, after = codec(speech), codec(changed)
    torch.testing.assert_close(before[:, : 10 * FRAME], after[:, : 10 * FRAME])
    assert (before - after)[:, 10 * FRAME : 11 * FRAME].abs().max() > 1e-4


def test_rows_do_not_touch_each_other(codec, speech):
    rows = torch.cat([codec.encode(row) for row in speech.split(1)])
    assert torch.equal(codec.encode(speech), rows)


@pytest.mark.parametrize("length", [0, 1, 319, 320, 400, 5000])
def test_a_reconstruction_is_as_long_as_the_original_and_in_time_with_it(codec, speech, length):
    heard = codec.reconstruct(speech[:, :length], num_groups=2)
    padded = torch.nn.functional.pad(speech[:, :length], (0, 3 * FRAME - length % FRAME))
    late = codec.decode(codec.encode(padded)[:, :2])
    torch.testing.assert_close(heard, late[:, 240 : 240 + length], rtol=1e-4, atol=1e-5)


def test_the_declared_numbers_are_those_of_the_design():
    config = CodecConfig()
    assert config.bits_per_second == pytest.approx(8 * math.log2(1000) * 50)
    assert round(config.bits_per_second) == 3986
    assert (config.sample_rate, config.frame_size) == (16000, 320)
    codec = Codec(CodecConfig.tiny())
    assert (codec.delay, codec.latency) == (240, 560)  # 35 ms at 16 kHz
    assert codec.config.bits_per_second == pytest.approx(config.bits_per_second / 2)


def test_the_state_has_the_same_size_after_any_time(codec, speech):
    first = codec.init_state(2)
    _, later = codec.step(speech, first)
    assert [t.shape for t in flat_tensors(first)] == [t.shape for t in flat_tensors(later)]


def test_silence_and_full_scale_stay_finite(codec):
    for x in (torch.zeros(1, 9 * FRAME), torch.ones(1, 9 * FRAME)):
        assert codec(x).isfinite().all()


def test_codes_of_another_codec_are_refused(codec):
    with pytest.raises(ShapeError, match="codes have 8 groups, but this codec has 4: were they"):
        codec.decode(torch.zeros(1, 8, 2, dtype=torch.int64))


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ConfigError, match=r"frames have 320 samples, the decoder's 400 \(upsample"):
        CodecConfig(decoder=DecoderConfig(upsample=5))


def test_a_saved_codec_loads_again_with_a_hash_of_its_own(folder, codec, speech):
    first, second = LoadedCodec.load(folder), LoadedCodec.load(str(folder))
    assert (first.name, first.config) == ("toy", codec.config)
    assert len(first.hash) == 32 and first.hash == second.hash
    halves = Codec(codec.config).requires_grad_(False)
    halves.load_state_dict({k: v.half().float() for k, v in codec.state_dict().items()})
    assert torch.equal(first.network.encode(speech), halves.encode(speech))
    assert torch.equal(first.network(speech), halves(speech))
    tables = {"codec": to_dict(codec.config)}
    codec.decoder.head.bias[0] += 0.1
    save_model(folder, "codec", "a line", tables, codec.state_dict())
    other_voice = LoadedCodec.load(folder)
    assert other_voice.hash != first.hash and other_voice.codes_hash == first.codes_hash
    codec.to_latent.bias[0] += 0.1
    save_model(folder, "codec", "a line", tables, codec.state_dict())
    other_codes = LoadedCodec.load(folder)
    assert other_codes.codes_hash != first.codes_hash
    assert other_codes.frames_hash == other_voice.frames_hash == first.frames_hash
    codec.encoder.in_proj.bias[0] += 0.1
    save_model(folder, "codec", "a line", tables, codec.state_dict())
    other_frames = LoadedCodec.load(folder)
    assert other_frames.frames_hash != first.frames_hash
    assert other_frames.codes_hash != other_codes.codes_hash


def test_a_codec_of_other_levels_has_another_hash_of_codes_alone(folder, codec):
    first = LoadedCodec.load(folder)
    # as many dimensions, and so the same weights
    quantiser = QuantiserConfig(num_groups=4, levels=(7, 5, 5, 5))
    tables = {"codec": to_dict(dataclasses.replace(codec.config, quantiser=quantiser))}
    save_model(folder, "codec", "a line", tables, codec.state_dict())
    second = LoadedCodec.load(folder)
    assert second.codes_hash != first.codes_hash and second.frames_hash == first.frames_hash


def test_a_recogniser_cannot_serve_as_a_codec(tmp_path):
    network = make_transcriber().network
    tables = {"recogniser": to_dict(network.config)}
    save_model(tmp_path / "ears", "recogniser", "", tables, network.state_dict())
    with pytest.raises(ModelError, match="a recogniser model can't serve as a codec"):
        LoadedCodec.load(tmp_path / "ears")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_groups = ", "num_groups = 0 #", "quantiser.num_groups is 0, must be 1 or more"),
        ("upsample = ", "upsample = 5 #", "they must be equal"),
        ("levels = ", "levls = ", r"unknown key codec\.quantiser\.'levls'"),
        ("num_groups = ", "num_groups = 5 #", r"to_latent\.\w+ has shape|in_proj\.\w+ has shape"),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused(folder, old, new, message):
    path = folder / "config.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        LoadedCodec.load(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_without_the_table_is_refused(tmp_path, codec):
    save_model(tmp_path / "toy", "codec", "", {}, codec.state_dict())
    with pytest.raises(ModelError, match=r"config\.toml: missing table 'codec'"):
        LoadedCodec.load(tmp_path / "toy")


def test_the_shipped_encoder_and_quantiser_are_frozen():
    # recognisers stand on its frames, files on its codes: another one is a model of another name
    shipped = LoadedCodec.load("first-frames")
    assert shipped.frames_hash == "4b746a681a29006308a9caaf3000dee8"
    assert shipped.codes_hash == "e35b1da367a692c021e796372061cccb"
