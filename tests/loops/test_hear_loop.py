"""The recogniser's compiled loop: as exact as torch, whatever its sizes and its look-ahead."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from audiossm import Session, Transcriber
from audiossm.loops import LoopState
from audiossm.models import Recogniser, RecogniserConfig
from audiossm.models.loops import make_hear_loop
from audiossm.nn import named_tensors, stack_states
from audiossm.rounding import restore_rows, round_rows
from audiossm.streaming import Stream, Token
from tiny_model import make_transcriber, read_speech

SPEECH = read_speech()


@cache
def load_transcriber(backend: str) -> Transcriber:
    return Transcriber.load(decoder="greedy", backend=backend)


def make_odd(stack: int, phones: tuple[str, ...], conv_kernel: int) -> Recogniser:
    """A recogniser of other sizes than the shipped one, whose weights are bytes."""
    tiny = RecogniserConfig.tiny()
    encoder = replace(tiny.encoder, spectra="magnitude", num_blocks=2)
    config = replace(
        tiny,
        **{"encoder": encoder, "stack": stack, "phones": phones, "conv_kernel": conv_kernel},
    )
    network = Recogniser(config).requires_grad_(False)
    for weight in network.parameters():
        if weight.dim() == 2:
            noise = torch.randn_like(weight) * weight.shape[1] ** -0.5
            weight.copy_(restore_rows(*round_rows(noise)))
        elif weight.dim() == 1:
            weight.add_(0.1 * torch.randn_like(weight))
    return network


@pytest.mark.parametrize("right", [0, 4, 8])
@pytest.mark.parametrize("sizes", [None, (2, ("a", "n"), 3), (1, (), 3), (3, ("a",), 0)], ids=str)
def test_frames_one_by_one_are_what_one_call_by_torch_gives(sizes, right):
    network = load_transcriber("torch").network if sizes is None else make_odd(*sizes)
    x = torch.from_numpy(SPEECH[: network.config.frame_size * 60].copy()).unsqueeze(0)
    running = LoopState(make_hear_loop(network), network.init_state(1, right))
    found = running.step(x)
    with torch.inference_mode():
        letters, phones, state = network.hear(x, network.init_state(1, right))
    expected = (letters,) if phones is None else (letters, phones)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-3
        assert (ours.exp() - theirs.exp()).abs().max() <= 2e-4
    ended = network.turn_back(running.read())
    for (name, ours), (_, theirs) in zip(named_tensors(ended), named_tensors(state), strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).abs().max() <= 2e-4 * max(1.0, float(theirs.abs().max())), name


def hear(session: Session, at: int, size: int) -> list[Token]:
    events = []
    for begin in range(at, len(SPEECH), size):
        events += session.push(SPEECH[begin : begin + size])
    return [event for event in (*events, *session.finish()) if isinstance(event, Token)]


def test_the_same_tokens_come_by_loops_also_after_a_snapshot():
    whole = hear(load_transcriber("torch").session(), 0, len(SPEECH))
    live = load_transcriber("auto").session()
    found = hear(live, 0, 320)
    assert live.profile == "numba-float32-cpu"
    assert [token.id for token in found] == [token.id for token in whole]
    moved = load_transcriber("auto").session()
    before = moved.push(SPEECH[:5000]) + moved.push(SPEECH[5000:30000])
    moved = Session.restore(load_transcriber("torch"), moved.snapshot())
    after = [token.id for token in hear(moved, 30000, len(SPEECH))]
    ids = [event.id for event in before if isinstance(event, Token)]
    assert ids + after == [token.id for token in whole]


def test_rows_with_other_look_aheads_do_not_touch_each_other():
    network = load_transcriber("torch").network
    loop = make_hear_loop(network)
    x = torch.from_numpy(SPEECH[: 640 * 20].copy()).unsqueeze(0)
    states = [network.init_state(1, right) for right in (0, 8)]
    alone = [LoopState(loop, state).step(x) for state in states]
    both = LoopState(loop, stack_states(states)).step(torch.cat([x, x]))
    for row in range(2):
        for together, one in zip(both, alone[row], strict=True):
            assert np.array_equal(together[row], one[0])


def test_a_restored_stream_goes_on_by_loops_to_the_bit():
    transcriber = load_transcriber("auto")
    once, again = Stream(transcriber.session()), Stream(transcriber.session())
    for at in range(0, 32000, 4000):
        again = Stream.restore(transcriber, again.snapshot())
        again.push(SPEECH[at : at + 4000])
        once.push(SPEECH[at : at + 4000])
        assert again.snapshot() == once.snapshot()
    again = Stream.restore(transcriber, again.snapshot())
    # a longer piece than those of live streams
    assert again.push(SPEECH[32000:]) == once.push(SPEECH[32000:])
    assert again.finish() == once.finish()
    assert again.session.profile == "numba-float32-cpu"


def test_a_stream_is_rewound_by_loops_if_it_went_on_by_them():
    transcriber = make_transcriber(with_loop=True)
    straight, stream = Stream(transcriber.session()), Stream(transcriber.session(), 10.0)
    pieces = np.split(SPEECH[:32000], 8)
    for piece in pieces:
        straight.push(piece)
        stream.push(piece)
    for again in (stream, Stream.restore(transcriber, stream.snapshot())):
        again.rewind(12000)
        for piece in pieces[5:]:
            again.push(piece)
        assert again.session.snapshot() == straight.session.snapshot()
