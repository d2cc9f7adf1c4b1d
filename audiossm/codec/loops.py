"""The codec's steps as programs of compiled loops."""

import numpy as np
import torch
from torch import nn

from audiossm.codec.codec import Codec, EncodingState
from audiossm.codec.convnext import list_blocks
from audiossm.codec.decoder import LOUDNESS, MAX_LOG_MAGNITUDE, Decoder, DecoderState
from audiossm.codec.encoder import Encoder
from audiossm.codec.pitch import HIDDEN_ONE, INPUT_ONE, MAX_BYTE, STEPS, WEIGHT_ONE, PitchReader
from audiossm.codec.source import LEVEL, TURN
from audiossm.errors import ModelError
from audiossm.loops import Loop, Output, Program, Slot, name_parts
from audiossm.loops import program as layers

__all__ = ["add_encoder", "make_decode_loop", "make_encode_loop"]

FLOOR = 1e-8  # of the power in a bin


def make_encode_loop(network: Codec, *, with_latent: bool = False) -> Loop[EncodingState]:
    """Return what ``encode_step`` does, and on demand what ``narrow_step`` does beside.

    Raises:
        ModelError: the codec has no loop: its weights are no bytes, or it is built otherwise.
    """
    config, encoder, detail = network.config, network.encoder, network.detail
    if detail is None:
        raise ModelError("its codes are made of the encoder's frames alone")
    program = Program(name_parts(network.init_encoding(1)))
    samples = program.slot(1, config.frame_size)
    x, power = add_encoder(program, samples, encoder)
    num_spectra = power.rows
    latent = program.linear(x, network.to_latent)

    lags, bins = detail.config.num_lags, detail.config.num_bins
    table = program.writer.add(detail.used)
    program.writer.add(torch.tensor([FLOOR, 4.0]))
    flat = program.line(layers.FLATTEN, power, program.slot(num_spectra, bins), table=table)
    alike = program.multiply(flat, detail.cosines.T)
    heard = program.slot(1, num_spectra * (lags + bins) + x.width)
    for i in range(num_spectra):
        begin = heard.at + i * (lags + bins)
        program.line(layers.COPY, pick(alike, i), Slot(begin, 1, lags))
        program.compress(pick(power, i), Slot(begin + lags, 1, bins), (FLOOR, 0.0, 0.1))
    program.line(layers.COPY, x, Slot(heard.end - x.width, 1, x.width))
    y = program.linear(heard, detail.in_proj)
    add_blocks(program, y, detail.blocks, "detail")
    more = program.linear(y, detail.out_proj)
    program.line(layers.ADD, more, Slot(latent.end - more.width, 1, more.width))

    quantiser = network.quantiser
    table = program.writer.add(quantiser.shift)
    for row in (quantiser.half_width, quantiser.offset, quantiser.scale, quantiser.bases):
        program.writer.add(row)
    codes = program.slot(1, config.quantiser.num_groups)
    program.line(layers.QUANTISE, latent, codes, table=table)
    outputs = [Output(codes, (codes.width, 1), 1, np.int64)]
    if with_latent:
        outputs.append(Output(latent, (1, latent.width), 0, np.float32))
    return Loop(program, samples, *outputs)


def make_decode_loop(network: Decoder) -> Loop[DecoderState]:
    """Return what ``Decoder.step`` does.

    Raises:
        ModelError: the decoder has no loop: its weights are no bytes, or it has no source.
    """
    config, source = network.config, network.source
    if source is None:
        raise ModelError("its decoder has no source")
    program = Program(name_parts(network.init_state(1)))
    latent, num_bins = program.slot(1, network.latent_dim), network.istft.num_bins

    logits = add_pitch(program, latent, source.reader)
    pulses = program.slot(1, config.frame_size)
    table = program.writer.add(source.speeds)
    program.writer.add(source.harmonics)
    program.writer.add(torch.tensor([LEVEL]))
    program.line(
        layers.SOUND, logits, pulses, table=table, part="source.phase", others=(STEPS, TURN)
    )
    windows = program.slot(config.upsample, config.window)
    program.line(layers.WINDOWS, pulses, windows, part="source.stft.tail")

    x = program.linear(latent, network.in_proj)
    mixed = program.mixer(program.rms_norm(x, network.norm), network.mixer, "ssm.angle")
    x = program.line(layers.ADD, mixed, x)
    add_blocks(program, x, network.blocks, "blocks")
    x = program.linear(x, network.up)
    x = Slot(x.at, config.upsample, config.d_fine)

    # one behind the other, as a layer takes them in the end
    all_four = program.slot(config.upsample, 6 * num_bins)
    head = Slot(all_four.at, config.upsample, 2 * num_bins)
    voice = Slot(head.end, config.upsample, 2 * num_bins)
    power = Slot(voice.end, config.upsample, num_bins)
    gate = Slot(power.end, config.upsample, num_bins)
    program.line(layers.MULTIPLY, windows, voice, table=program.writer.add(source.stft.basis.T))
    program.line(layers.SQUARES, voice, power)
    loudness = program.slot(power.rows, num_bins)
    program.compress(power, loudness, (1e-4, 0.0, LOUDNESS))
    program.line(layers.ADD, program.linear(loudness, network.listen), x)
    add_blocks(program, x, network.fine_blocks, "fine")
    x = program.layer_norm(x, network.head_norm)
    for layer, slot in ((network.head, head), (network.gate, gate)):
        table = program.writer.add_product(layer.weight, layer.bias)
        program.line(layers.PRODUCT, x, slot, table=table)
    spectra = program.slot(config.upsample, 2 * num_bins)
    table = program.writer.add(torch.tensor([MAX_LOG_MAGNITUDE]))
    program.line(layers.SPECTRA, all_four.flat(), spectra, table=table)
    frames = program.multiply(spectra, network.istft.basis.T)
    samples = program.slot(1, config.frame_size)
    program.line(layers.OVERLAP, frames, samples, part="istft.tail")
    return Loop(program, latent, Output(samples, (samples.width,), 0, np.float32))


def add_encoder(program: Program, samples: Slot, encoder: Encoder) -> tuple[Slot, Slot]:
    """Add an encoder whose state is called so: samples to frames and the spectra's powers.

    Raises:
        ModelError: its weights are no bytes, or it has other features.
    """
    config, num_bins = encoder.config, encoder.stft.num_bins
    if config.spectra != "magnitude":
        raise ModelError("its encoder has other features")
    windows = program.slot(samples.width // config.hop, config.window)
    program.line(layers.WINDOWS, samples, windows, part="encoder.stft.tail")
    spectra = program.multiply(windows, encoder.stft.basis.T)
    power = program.line(layers.SQUARES, spectra, program.slot(spectra.rows, num_bins))
    mels = program.multiply(power, encoder.filters.T)
    stacked = program.slot(power.rows, num_bins + mels.width)
    program.compress(power, stacked, (FLOOR, 10.0, 0.25))
    program.compress(mels, stacked, (FLOOR, 10.0, 0.25), num_bins)
    frames = samples.width // config.frame_size
    features = Slot(stacked.at, frames, config.spectra_per_frame * stacked.width)
    x = program.linear(features, encoder.in_proj)
    add_blocks(program, x, encoder.blocks, "encoder.blocks")
    mixed = program.mixer(program.rms_norm(x, encoder.norm), encoder.mixer, "encoder.ssm.angle")
    return program.line(layers.ADD, mixed, x), power


def add_blocks(program: Program, x: Slot, modules: nn.ModuleList, part: str) -> None:
    """Add blocks that change x where it is."""
    for i, block in enumerate(list_blocks(modules)):
        table = program.writer.add(block.conv.weight.squeeze(1).T)
        program.writer.add(block.conv.bias)
        y = program.slot(x.rows, x.width)
        program.line(layers.CONVOLVE, x, y, table=table, part=f"{part}.{i}.tail")
        y = program.linear(program.layer_norm(y, block.norm), block.up)
        program.line(layers.GELU, y, y)
        program.line(layers.ADD, program.linear(y, block.down, block.scale), x)


def add_pitch(program: Program, x: Slot, reader: PitchReader) -> Slot:
    """Add what reads pitches: logits (hops, bins + 1)."""
    near = program.slot(1, reader.config.context * x.width)
    y = program.line(layers.GATHER, x, near, part="source.frames")
    limits = [INPUT_ONE, -(2.0**24), 2.0**24]
    one = INPUT_ONE * WEIGHT_ONE
    for layer in reader.linears():
        last = layer is reader.layers[-1]
        program.line(layers.WHOLE, y, y, table=program.writer.add(torch.tensor(limits)))
        scale = torch.full((len(layer.weight),), (1 if last else HIDDEN_ONE) / one)
        numbers = (WEIGHT_ONE * layer.weight).clamp(-127, 127).round().to(torch.int8)
        bias = (one * layer.bias.clamp(-8, 8)).round() * scale
        y = program.product(y, program.writer.add_numbers(numbers.numpy(), scale, bias))
        limits, one = [1.0, 0.0, MAX_BYTE], HIDDEN_ONE * WEIGHT_ONE
    return Slot(y.at, reader.hops, reader.config.num_bins + 1)


def pick(slot: Slot, row: int) -> Slot:
    """Return one row."""
    return Slot(slot.at + row * slot.width, 1, slot.width)
