"""The recogniser's and the generator's steps as programs of compiled loops."""

import numpy as np

from audiossm.codec.loops import add_encoder
from audiossm.loops import Loop, Output, Program, Slot, name_parts
from audiossm.loops import program as layers
from audiossm.models.generator import Generator, GeneratorState
from audiossm.models.phone_head import PhoneHead
from audiossm.models.recogniser import Recogniser, RecogniserState
from audiossm.nn import Block, GatedConv, LookAheadConv, mamba_blocks

__all__ = ["make_hear_loop", "make_say_loop"]


def make_hear_loop(network: Recogniser) -> Loop[RecogniserState]:
    """Return what ``run`` does, one backbone frame at a time.

    Raises:
        ModelError: the network has no loop: its weights are no bytes, or it is built otherwise.
    """
    blocks = mamba_blocks(network.blocks(), "compiled loops")
    config, convs = network.config, network.gated_convs()
    program = Program(name_parts(network.init_state(1)))
    samples, outputs = program.slot(1, config.frame_size), []
    frames, _ = add_encoder(program, samples, network.encoder)
    x = program.linear(frames.flat(), network.in_proj)
    low = config.lookahead_after
    for i, block in enumerate(blocks):
        if convs:
            add_conv(program, x, convs[i], f"convs.{i}.tail")
        add_block(program, x, block, f"lower.{i}" if i < low else f"upper.{i - low}")
        if i + 1 == low:
            x = add_look_ahead(program, x, network.lookahead)
        if i + 1 == config.middle_after and network.phones is not None:
            outputs.append(add_phones(program, x, network.phones, config.stack))
    logits = program.linear(program.rms_norm(x, network.norm_f), network.head)
    outputs.insert(0, add_labels(program, logits, config.stack))
    return Loop(program, samples, *outputs)


def make_say_loop(network: Generator) -> Loop[GeneratorState]:
    """Return what ``step`` does, frame by frame.

    Raises:
        ModelError: the network has no loop: its weights are no bytes, or it is built otherwise.
    """
    blocks = mamba_blocks(network.blocks(), "compiled loops")
    program = Program(name_parts(network.init_state(1)))
    told = program.slot(1, network.config.backbone.d_model)
    for i, block in enumerate(blocks):
        add_block(program, told, block, f"layers.{i}")
    outputs = program.linear(program.rms_norm(told, network.norm_f), network.head)
    return Loop(program, told, Output(outputs, (1, outputs.width), 0, np.float32))


def add_conv(program: Program, x: Slot, conv: GatedConv, part: str) -> None:
    """Add a gated convolution that changes x where it is."""
    gated = program.linear(program.rms_norm(x, conv.norm), conv.gated)
    y = program.line(layers.GATE, gated, program.slot(1, x.width))
    table = program.writer.add(conv.conv.weight.squeeze(1).T)
    program.writer.add(conv.conv.bias)
    y = program.line(layers.CONVOLVE, y, program.slot(1, x.width), table=table, part=part)
    y = program.rms_norm(y, conv.conv_norm)
    y = program.line(layers.SILU, y, y)
    program.line(layers.ADD, program.linear(y, conv.out), x)


def add_block(program: Program, x: Slot, block: Block, part: str) -> None:
    """Add a layer of the backbone that changes x where it is."""
    mixed = program.mixer(program.rms_norm(x, block.norm), block.mixer, f"{part}.angle")
    program.line(layers.ADD, mixed, x)
    both = program.linear(program.rms_norm(x, block.norm2), block.mlp.fc1)
    y = program.line(layers.GATE, both, program.slot(1, both.width // 2), others=(1, 0))
    program.line(layers.ADD, program.linear(y, block.mlp.fc2), x)


def add_look_ahead(program: Program, x: Slot, layer: LookAheadConv) -> Slot:
    """Add the convolution that waits for the future."""
    table = program.writer.add((layer.weight + layer.delay).flatten(0, 1))
    y = program.slot(1, x.width)
    return program.line(layers.LOOK_AHEAD, x, y, table=table, part="lookahead.tail")


def add_phones(program: Program, x: Slot, head: PhoneHead, stack: int) -> Output:
    """Add the head for phones, which tells x about them."""
    logits = program.linear(program.rms_norm(x, head.norm), head.head)
    output = add_labels(program, logits, stack)
    program.line(layers.ADD, program.linear(logits, head.condition), x)
    return output


def add_labels(program: Program, logits: Slot, stack: int) -> Output:
    """Add a softmax for each label frame; probabilities take the logits' place."""
    rows = Slot(logits.at, stack, logits.width // stack)
    y = program.line(layers.LOG_SOFTMAX, rows, program.slot(stack, rows.width))
    return Output(y, (y.rows, y.width), 0, np.float32)
