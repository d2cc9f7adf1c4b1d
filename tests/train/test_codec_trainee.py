"""The codec in training is the codec in use, and its run goes down and skips what is broken."""

from pathlib import Path

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.codec import CodecConfig, QuantiserConfig
from audiossm.config import to_dict
from audiossm.errors import ConfigError
from audiossm.train.codec_trainee import CodecTrainee
from audiossm.train.run import Run
from tiny_model import make_transcriber, read_speech

TINY = CodecConfig.tiny()


@pytest.fixture
def trainee() -> CodecTrainee:
    return CodecTrainee(TINY, num_phones=5)


@pytest.fixture
def speech() -> torch.Tensor:
    return torch.from_numpy(read_speech()[: 36 * 320].copy()).view(3, -1)


def test_rows_come_out_as_the_codec_decodes_their_groups(trainee, speech):
    codec = trainee.codec
    with torch.no_grad():
        samples, group = trainee(codec.encoder.stft(speech), torch.tensor([1, 4, 2]))
    codes = codec.encode(speech)
    for row, kept in enumerate((1, 4, 2)):
        expected = codec.decode(codes[row : row + 1, :kept])[0]
        torch.testing.assert_close(samples[row], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(group, codec.quantiser.decode(codes)[..., :4])


def test_phones_are_guessed_from_the_first_group(trainee, speech):
    _, group = trainee(trainee.codec.encoder.stft(speech), torch.tensor([4, 4, 4]))
    log_probs = trainee.phone_head(group)
    assert log_probs.shape == (3, 12, 6)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3, 12))
    weights = trainee.codec.to_latent.weight
    (gradient,) = torch.autograd.grad(log_probs[..., 1].sum(), weights)
    assert gradient[:4].abs().max() > 1e-6
    assert not gradient[4:].any()


def test_gradients_reach_every_weight_through_the_codes(trainee, speech):
    samples, group = trainee(trainee.codec.encoder.stft(speech), torch.tensor([4, 4, 4]))
    (samples.square().sum() + trainee.phone_head(group)[..., 1].sum()).backward()
    without = [name for name, p in trainee.named_parameters() if p.grad is None]
    assert without == []
    assert trainee.codec.encoder.in_proj.weight.grad.abs().max() > 0


def test_a_step_goes_down_and_moves_the_average(trainee, speech):
    run = Run(trainee, trainee.codec, lr=1e-2, weight_decay=0.0, ema=0.5, betas=(0.8, 0.99))
    spectra, groups = trainee.codec.encoder.stft(speech), torch.tensor([4, 4, 4])
    losses = []
    for _ in range(5):
        loss = (trainee(spectra, groups)[0] - 0.1).square().mean()
        before = run.ema.to_latent.weight.clone()
        run.advance(loss, 1e-2, 10.0)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0] and run.step == 5
    # at step 5 a young average keeps (1 + 4) / (10 + 4) of itself
    expected = torch.lerp(before, trainee.codec.to_latent.weight, 9 / 14)
    torch.testing.assert_close(run.ema.to_latent.weight, expected)


def test_a_broken_gradient_changes_no_weight(trainee, speech):
    run = Run(trainee, trainee.codec, lr=1e-2, weight_decay=0.1, ema=0.5, betas=(0.8, 0.99))
    spectra, groups = trainee.codec.encoder.stft(speech), torch.tensor([4, 4, 4])
    run.advance(trainee(spectra, groups)[0].square().mean(), 1e-2, 10.0)
    before = {name: p.detach().clone() for name, p in trainee.named_parameters()}
    norm = run.advance(trainee(spectra, groups)[0].mean() * torch.nan, 1e-2, 10.0)
    assert norm.isnan()
    for name, parameter in trainee.named_parameters():
        assert torch.equal(parameter, before[name]), name


def save_codec(path: Path, trainee: CodecTrainee) -> str:
    tables = {"codec": to_dict(trainee.codec.config)}
    save_model(path, "codec", "", tables, trainee.codec.state_dict())
    return str(path)


def test_it_may_begin_from_another_codec(trainee, tmp_path):
    name = save_codec(tmp_path / "old", trainee)
    other = CodecTrainee(TINY, num_phones=2)
    other.begin_from(name)
    for key, tensor in trainee.codec.state_dict().items():
        assert torch.equal(other.codec.state_dict()[key], tensor.half().float()), key


def test_its_encoder_may_begin_from_a_recognisers(trainee, tmp_path):
    network = make_transcriber().network
    tables = {"recogniser": to_dict(network.config)}
    save_model(tmp_path / "ears", "recogniser", "", tables, network.state_dict())
    decoder = {k: v.clone() for k, v in trainee.codec.decoder.state_dict().items()}
    trainee.begin_from(str(tmp_path / "ears"))
    for key, tensor in network.encoder.state_dict().items():
        assert torch.equal(trainee.codec.encoder.state_dict()[key], tensor.half().float()), key
    for key, tensor in trainee.codec.decoder.state_dict().items():
        assert torch.equal(tensor, decoder[key]), key


def test_a_model_of_other_sizes_is_no_beginning(trainee, tmp_path):
    name = save_codec(tmp_path / "old", trainee)
    other = CodecTrainee(
        CodecConfig(
            encoder=TINY.encoder, quantiser=QuantiserConfig(num_groups=2), decoder=TINY.decoder
        ),
        num_phones=2,
    )
    with pytest.raises(
        ConfigError, match=r"old' has other sizes: quantiser.num_groups is 4 \(here 2\)"
    ):
        other.begin_from(name)
