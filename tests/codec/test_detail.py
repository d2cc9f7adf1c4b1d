"""The detail branch: new it changes nothing, grown it leaves frames and first group alone."""

from dataclasses import replace

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import Codec, CodecConfig, DetailConfig, LoadedCodec
from audiossm.config import to_dict
from audiossm.errors import ConfigError
from contract import assert_streaming_equals_offline
from tiny_model import read_speech
from toy_codec import make_codec

FRAME = 320
SIZES = DetailConfig(num_bins=96, d_model=16, d_hidden=24, num_blocks=1)


@pytest.fixture
def plain() -> Codec:
    return make_codec()


@pytest.fixture
def new(plain) -> Codec:
    """The same codec with a new branch."""
    codec = Codec(replace(plain.config, detail=SIZES)).requires_grad_(False)
    codec.load_state_dict(plain.state_dict(), strict=False)
    return codec


@pytest.fixture
def grown(new) -> Codec:
    """One whose branch has something to say."""
    torch.nn.init.normal_(new.detail.out_proj.weight)
    return new


@pytest.fixture
def speech() -> torch.Tensor:
    return torch.from_numpy(read_speech()[: 24 * FRAME].copy()).view(2, -1)


def test_a_new_branch_says_nothing(plain, new, speech):
    assert torch.equal(new.encode(speech), plain.encode(speech))
    assert torch.equal(new(speech), plain(speech))


def test_the_first_group_and_the_frames_are_not_touched(plain, grown, speech):
    before, after = plain.encode(speech), grown.encode(speech)
    assert torch.equal(before[:, 0], after[:, 0])
    assert all((before[:, group] != after[:, group]).any() for group in (1, 2, 3))
    assert torch.equal(grown.encoder(speech), plain.encoder(speech))


def test_a_voice_correlates_most_at_its_period(new):
    time = torch.arange(16000) / 16000
    for hertz in (90.0, 120.0, 250.0):
        voice = sum((2 * torch.pi * hertz * h * time).cos() for h in range(1, 12))
        spectra = new.encoder.stft(0.02 * voice.unsqueeze(0))
        alike = new.detail.features(spectra)[0, -1, : SIZES.num_lags]
        wanted = round(16000 / hertz) - SIZES.shortest_lag
        # the second half of the lags has the doubled periods of high voices
        assert abs(int(alike[: int(1.5 * wanted)].argmax()) - wanted) <= 2


def test_any_chunking_gives_the_offline_result(grown, speech):
    assert_streaming_equals_offline(grown, speech, out_time=1, multiple=FRAME, trials=4)
    state, pieces = grown.init_encoding(2), []
    for chunk in speech.split([FRAME, 4 * FRAME, 7 * FRAME], dim=1):
        codes, state = grown.encode_step(chunk, state)
        pieces.append(codes)
    assert torch.equal(torch.cat(pieces, dim=2), grown.encode(speech))


def test_the_branch_changes_the_hash_of_codes_and_not_that_of_frames(tmp_path, plain, grown):
    loaded = {}
    for name, codec in (("plain", plain), ("grown", grown)):
        tables = {"codec": to_dict(codec.config)}
        save_model(tmp_path / name, "codec", "", tables, codec.state_dict())
        loaded[name] = LoadedCodec.load(tmp_path / name)
    assert loaded["grown"].config.detail == SIZES
    assert loaded["grown"].frames_hash == loaded["plain"].frames_hash
    assert loaded["grown"].codes_hash != loaded["plain"].codes_hash


def test_more_bins_than_the_spectra_have_are_refused():
    with pytest.raises(ConfigError, match=r"detail\.num_bins is 300, the spectra have 257"):
        Codec(replace(CodecConfig.tiny(), detail=DetailConfig(num_bins=300)))
    with pytest.raises(ConfigError, match=r"detail\.kernel is 0, must be above 0"):
        DetailConfig(kernel=0)
