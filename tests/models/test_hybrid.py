"""A backbone with layers of attention keeps every promise, or says clearly what it can't."""

from dataclasses import replace

import pytest
import torch

from audiossm import Session, Transcriber
from audiossm.errors import ModelError
from audiossm.graphs.exporter import export_graph
from audiossm.graphs.session import BoundState, GraphFolder
from audiossm.models import Generator, GeneratorConfig, Recogniser, RecogniserConfig
from audiossm.models.loaded import make_step
from audiossm.models.loops import make_hear_loop, make_say_loop
from audiossm.models.recogniser_slots import RecogniserSlots
from audiossm.nn import named_tensors
from contract import assert_streaming_equals_offline
from session_runs import plain, run_pieces
from tiny_model import read_speech

SHORT = {"attention_layers": (1,), "attention_window": 6, "attention_heads": 2}
SHORT |= {"attention_kv_heads": 1}
SPEECH = read_speech()


def make_recogniser() -> Recogniser:
    tiny = RecogniserConfig.tiny()
    encoder = replace(tiny.encoder, spectra="magnitude")
    backbone = replace(tiny.backbone, **SHORT)
    network = Recogniser(replace(tiny, encoder=encoder, backbone=backbone))
    with torch.no_grad():
        network.head.weight.mul_(10.0)
        network.head.bias.view(-1, len(tiny.pieces))[:, :2] += torch.tensor([2.5, 2.0])
    return network.eval().requires_grad_(False)


def make_generator() -> Generator:
    tiny = GeneratorConfig.tiny()
    config = replace(tiny, backbone=replace(tiny.backbone, **SHORT))
    return Generator(config).eval().requires_grad_(False)


def test_any_pieces_with_snapshots_between_give_the_whole_transcript():
    transcriber = Transcriber(make_recogniser(), name="hybrid", model_hash="0" * 32)
    sizes = [len(SPEECH)]
    whole = plain(run_pieces(Session(transcriber), SPEECH, sizes))
    assert len(whole) > 20
    sizes = [1000, 640, 7, 30000, 12000, 1, len(SPEECH)]
    pieces = run_pieces(Session(transcriber), SPEECH, sizes, restore=True)
    assert plain(pieces) == whole


def test_a_fork_goes_its_own_way():
    session = Session(Transcriber(make_recogniser(), name="hybrid", model_hash="0" * 32))
    session.push(SPEECH[:20000])
    fork = session.fork()
    fork.push(SPEECH[40000:60000])
    again = session.fork()
    for other in (session, again):
        other.push(SPEECH[20000:])
    assert plain(session.finish()) == plain(again.finish())


def test_a_generator_streams():
    x = torch.randn(2, 17, GeneratorConfig.tiny().backbone.d_model)
    assert_streaming_equals_offline(make_generator(), x, time=1, trials=4)


def test_a_graph_does_what_the_step_does(tmp_path):
    network = make_recogniser()
    step = make_step(network)
    graphs = GraphFolder(step, ())
    graphs.files = {1: tmp_path / "hear-1.onnx"}
    graphs.files[1].write_bytes(export_graph(step, 1))
    graphs.load(1)
    state = network.init_state(1)
    bound = BoundState(graphs, state)
    x = torch.from_numpy(SPEECH[: 10 * step.unit].copy()).unsqueeze(0)
    for piece in x.split(step.unit, dim=1):
        with torch.inference_mode():
            expected, state = step.call(network, piece, state)
            state = step.settle(state)
        torch.testing.assert_close(bound.step(piece)[0], expected[0], rtol=1e-4, atol=1e-4)
    ended = step.settle(bound.read())
    for (name, a), (_, b) in zip(named_tensors(ended), named_tensors(state), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: make_hear_loop(make_recogniser()), "compiled loops"),
        (lambda: make_say_loop(make_generator()), "compiled loops"),
        (lambda: RecogniserSlots(make_recogniser(), 2), "slots of a recogniser"),
    ],
)
def test_what_knows_no_attention_refuses_it(make, what):
    with pytest.raises(ModelError, match=rf"^{what} take no attention, but layers \[1\] of"):
        make()
