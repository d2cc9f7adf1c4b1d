"""The decoder in training is compared in time with what it should say."""

import torch

from audiossm.codec import Codec, CodecConfig
from audiossm.train.decoder_trainee import DecoderTrainee


def test_what_is_said_lies_in_time_with_the_recording():
    codec = Codec(CodecConfig.tiny()).requires_grad_(False)
    trainee, frame = DecoderTrainee(codec.decoder, 2), codec.config.frame_size
    audio = 0.1 * torch.randn(2, 12 * frame)
    values = codec.quantiser(codec.latent(codec.encoder(audio)))
    said, heard = trainee.speak(values), trainee.in_time(audio)
    assert said.shape == heard.shape
    assert torch.equal(heard, audio[:, 2 * frame : 2 * frame + heard.shape[1]])
    whole = codec.reconstruct(audio)[:, 2 * frame : 2 * frame + heard.shape[1]]
    torch.testing.assert_close(said, whole, rtol=1e-4, atol=1e-5)


def test_both_sides_learn_from_a_judgement():
    codec = Codec(CodecConfig.tiny())
    trainee = DecoderTrainee(codec.decoder, 1)
    values = torch.randn(2, 20, codec.config.quantiser.latent_dim)
    said = trainee.speak(values)
    scores = [judgement.scores.mean() for judgement in trainee.tell(torch.cat([said, said]))]
    torch.stack(scores).mean().backward()
    for name, weight in trainee.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
