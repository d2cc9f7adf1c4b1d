"""The generator's compiled loop: as exact as torch, and the same speech whatever it is cut into."""

from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch

from audiossm import Speaker
from audiossm.loops import LoopState
from audiossm.models import Generator, GeneratorConfig
from audiossm.models.loops import make_say_loop
from audiossm.nn import named_tensors
from audiossm.rounding import restore_rows, round_rows
from audiossm.streaming import Sound, SpeechSession

TEXT = "The tide is low. We walked as far as the old pier."


@cache
def load_speaker(backend: str) -> Speaker:
    return Speaker.load(backend=backend)


def make_odd(num_layers: int, num_groups: int) -> Generator:
    """A generator of other sizes than the shipped one, whose weights are bytes."""
    tiny = GeneratorConfig.tiny()
    backbone = replace(tiny.backbone, num_layers=num_layers, max_memory=None)
    network = Generator(replace(tiny, backbone=backbone, num_groups=num_groups))
    network.eval().requires_grad_(False)
    for weight in network.parameters():
        if weight.dim() == 2:
            noise = torch.randn_like(weight) * weight.shape[1] ** -0.5
            weight.copy_(restore_rows(*round_rows(noise)))
        elif weight.dim() == 1:
            weight.add_(0.1 * torch.randn_like(weight))
    return network


@pytest.mark.parametrize("sizes", [None, (1, 1), (3, 2)], ids=str)
def test_frames_one_by_one_are_what_one_call_by_torch_gives(sizes):
    torch.manual_seed(1)
    network = load_speaker("torch").network if sizes is None else make_odd(*sizes)
    x = torch.randn(1, 100, network.config.backbone.d_model)
    running = LoopState(make_say_loop(network), network.init_state(1))
    (found,) = running.step(x)
    with torch.inference_mode():
        expected, state = network.step(x, network.init_state(1))
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    ended = running.read()
    for (name, ours), (_, theirs) in zip(named_tensors(ended), named_tensors(state), strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, float(theirs.abs().max())), name


def say(session: SpeechSession, text: str) -> np.ndarray:
    """Say the rest of a text, and return the codes (groups, frames)."""
    events = [*session.push(text), *session.finish()]
    return np.concatenate([e.codes for e in events if isinstance(e, Sound)], axis=1)


def test_streams_take_the_loop_and_pieces_and_snapshots_change_nothing():
    speaker = load_speaker("auto")
    session = speaker.session(seed=7)
    whole = say(session, TEXT)
    assert (session.profile, session.decoder.profile) == ("numba-float32-cpu",) * 2
    session, codes = speaker.session(seed=7), []
    for letter in TEXT:
        codes += [e.codes for e in session.push(letter) if isinstance(e, Sound)]
        if letter == "w":
            session = speaker.restore(session.snapshot())
    found = np.concatenate([*codes, say(session, "")], axis=1)
    assert np.array_equal(found, whole)


@pytest.mark.parametrize("others", ["torch", "onnx"])
def test_a_snapshot_moves_to_other_arithmetic_and_back(others):
    loops, other = load_speaker("numba"), load_speaker(others)
    session = loops.session(seed=7)
    assert len(list(islice(session.push(TEXT), 40))) == 40
    state = dict(named_tensors(session.maker.stepper.state))
    x = session.tell()
    moved = other.restore(session.snapshot())
    assert moved.profile == f"{others}-float32-cpu"
    for name, part in named_tensors(moved.maker.stepper.state):
        assert (part - state[name]).abs().max() <= 1e-6 * max(1.0, float(state[name].abs().max()))
    for going in (moved, None):  # there, and back
        going = going or loops.restore(moved.snapshot())
        (found,), (expected,) = going.maker.stepper.step(x), session.maker.stepper.step(x)
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_network_whose_weights_are_no_bytes_runs_otherwise():
    network = make_odd(1, 1)
    network.head.weight.mul_(1.2345)
    speaker = load_speaker("auto")
    loaded = type(speaker)(network, speaker.codec, name="x", model_hash="0" * 32)
    assert loaded.ways.choose(1) == "torch"
