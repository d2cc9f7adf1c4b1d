"""The decoder in training is compared in time with what it should say."""

from dataclasses import replace

import pytest
import torch

from audiossm.codec import Codec, CodecConfig, DetailConfig, PitchConfig, SourceConfig
from audiossm.codec.stft import CausalSTFT
from audiossm.train.decoder_trainee import DecoderTrainee

DETAIL = DetailConfig(num_bins=20, d_model=16, d_hidden=24, num_blocks=1)


@pytest.fixture
def codec() -> Codec:
    return Codec(replace(CodecConfig.tiny(), detail=DETAIL))


def test_what_is_said_lies_in_time_with_the_recording(codec):
    trainee, frame = DecoderTrainee(codec, 2, train_codes=True), codec.config.frame_size
    audio = 0.1 * torch.randn(2, 12 * frame)
    said = trainee.speak(*trainee.hear(audio), torch.tensor([4, 4])).samples
    heard = trainee.in_time(audio)
    assert said.shape == heard.shape
    assert torch.equal(heard, audio[:, 2 * frame : 2 * frame + heard.shape[1]])
    whole = codec.reconstruct(audio)[:, 2 * frame : 2 * frame + heard.shape[1]]
    torch.testing.assert_close(said, whole, rtol=1e-4, atol=1e-5)


def test_each_row_is_decoded_from_as_many_groups_as_asked(codec):
    trainee = DecoderTrainee(codec, 1, train_codes=False)
    audio = (0.1 * torch.randn(1, 12 * 320)).repeat(2, 1)
    said = trainee.speak(*trainee.hear(audio), torch.tensor([1, 3])).samples
    for row, groups in enumerate((1, 3)):
        whole = codec.reconstruct(audio, groups)[row, 320 : 320 + said.shape[1]]
        torch.testing.assert_close(said[row], whole, rtol=1e-4, atol=1e-5)


def test_the_spectra_are_those_that_the_samples_cover(codec):
    trainee = DecoderTrainee(codec, 2, train_codes=False)
    said = trainee.speak(*trainee.hear(0.1 * torch.randn(2, 12 * 320)), torch.tensor([4, 4]))
    stft = CausalSTFT(320, 80)
    found = stft(said.samples)[:, 3:]
    assert said.spectra.shape == found.shape
    # a change of one spectrum is found in that place
    alike = torch.nn.functional.cosine_similarity(said.spectra, found, dim=-1)
    shifted = torch.nn.functional.cosine_similarity(said.spectra[:, 1:], found[:, :-1], dim=-1)
    assert alike.mean() > shifted.mean() + 0.1


@pytest.mark.parametrize("train_codes", [True, False])
def test_both_sides_learn_from_a_judgement(codec, train_codes):
    torch.nn.init.normal_(codec.detail.out_proj.weight)
    trainee = DecoderTrainee(codec, 1, train_codes=train_codes)
    heard = trainee.hear(0.1 * torch.randn(2, 20 * 320))
    said = trainee.speak(*heard, torch.tensor([4, 4])).samples
    scores = [judgement.scores.mean() for judgement in trainee.tell(torch.cat([said, said]))]
    torch.stack(scores).mean().backward()
    stays = ("codec.encoder.", *(() if train_codes else ("codec.to_latent.", "codec.detail.")))
    for name, weight in trainee.named_parameters():
        if name.startswith(stays):
            assert weight.grad is None and not weight.requires_grad, name
        else:
            assert weight.grad is not None and weight.grad.isfinite().all(), name


def test_the_first_group_takes_no_gradient(codec):
    trainee = DecoderTrainee(codec, 1, train_codes=True)
    said = trainee.speak(*trainee.hear(0.1 * torch.randn(1, 12 * 320)), torch.tensor([4]))
    said.samples.square().sum().backward()
    slope = codec.to_latent.weight.grad.abs().sum(1)
    assert (slope[:4] == 0).all() and (slope[4:] > 0).all()


@pytest.fixture
def voiced() -> Codec:
    """A codec with a source."""
    config = replace(CodecConfig.tiny(), detail=DETAIL)
    source = SourceConfig(pitch=PitchConfig(context=2, d_hidden=16))
    return Codec(replace(config, decoder=replace(config.decoder, source=source)))


def test_codes_learn_the_pitch_and_a_told_one_is_sounded(voiced):
    trainee = DecoderTrainee(voiced, 1, train_codes=True)
    time = torch.arange(20 * 320) / 16000
    audio = 0.1 * sum((2 * torch.pi * 150 * h * time).cos() for h in range(1, 9)).repeat(2, 1)
    heard, groups = trainee.hear(audio), torch.tensor([4, 4])
    said = trainee.speak(*heard, groups, audio, torch.zeros(()))
    assert 0 <= said.in_tune < 0.5
    said.pitch.backward()
    assert voiced.to_latent.weight.grad[4:].abs().sum() > 0
    assert (voiced.to_latent.weight.grad[:4] == 0).all()
    torch.testing.assert_close(said.samples, trainee.speak(*heard, groups).samples)
    told = trainee.speak(*heard, groups, audio, torch.ones(()))
    assert (told.samples - said.samples).abs().max() > 1e-4
    spectrum = torch.fft.rfft(told.samples[0, 640:5760] * torch.hann_window(5120)).abs()
    # 150 Hz is bin 48: harmonics stand out of what lies between
    assert spectrum[48:960:48].mean() > 2 * spectrum[72:960:48].mean()


def test_judges_hear_quiet_speech_as_loud(codec):
    trainee = DecoderTrainee(codec, 1, train_codes=False)
    x = 0.1 * torch.randn(4, 6000)
    loud, quiet = trainee.tell(x), trainee.tell(0.1 * x)
    for ours, theirs in zip(loud, quiet, strict=True):
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-4, atol=1e-5)


def test_the_encoder_hears_what_is_said_and_stays(codec):
    trainee = DecoderTrainee(codec, 1, train_codes=True)
    recorded = 0.1 * torch.randn(2, 12 * 320 + 80)
    assert trainee.hear_apart(recorded, recorded) < 1e-12
    said = (recorded + 0.02 * torch.randn_like(recorded)).requires_grad_()
    near, far = (trainee.hear_apart(x, recorded) for x in (said, torch.zeros_like(said)))
    assert 0 < near < far
    near.backward()
    assert said.grad is not None and said.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in codec.encoder.parameters())
