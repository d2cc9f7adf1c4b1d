"""A graph does what the step does that it was made from, and nobody runs another network's."""

import logging
import random
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from audiossm import AudioCodec, Session, Transcriber
from audiossm.checkpoint import shipped_models
from audiossm.codec import Codec
from audiossm.errors import AudioError, ConfigError, DeviceError, ModelError
from audiossm.graphs import Step, Stepper, Ways
from audiossm.graphs.exporter import export_graph
from audiossm.graphs.int8 import int8_weights, quantise_graph
from audiossm.graphs.probe import sums_are_exact
from audiossm.graphs.session import BoundState, GraphFolder
from audiossm.nn import named_tensors
from audiossm.rounding import restore_rows, round_rows
from audiossm.streaming import Token
from audiossm_apps.cli import main
from contract import random_split
from tiny_model import SPEECH as SPEECH_FOLDER
from tiny_model import make_transcriber, read_speech
from toy_codec import make_audio_codec

SPEECH = read_speech()
RTOL = 1e-4


@cache
def load_transcriber(backend: str) -> Transcriber:
    return Transcriber.load(decoder="greedy", backend=backend)


@cache
def load_codec(backend: str) -> AudioCodec:
    return AudioCodec.load(backend=backend)


def shipped_ways(name: str) -> Ways:
    codec = load_codec("torch")
    return {
        "hear": load_transcriber("torch").ways,
        "encode": codec.encoder_ways,
        "decode": codec.decoder_ways,
    }[name]


def make_input(name: str, num_frames: int) -> torch.Tensor:
    """Speech, some of it digital silence, or the latents of random codes."""
    step = shipped_ways(name).step
    if name == "decode":
        codes = torch.randint(1000, (1, 8, num_frames))
        return load_codec("torch").network.quantiser.decode(codes)
    x = torch.from_numpy(np.resize(SPEECH, num_frames * step.unit)).unsqueeze(0)
    x[:, x.shape[1] // 3 : x.shape[1] // 2] = 0.0
    return x


def assert_near(found: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    scale = max(expected.abs().max().item(), 1.0)
    assert (found - expected).abs().max().item() <= RTOL * scale, name


@pytest.mark.parametrize(
    "name, num_frames",
    [(name, count) for name in ("hear", "encode", "decode") for count in (1, 4)] + [("hear", 64)],
)
def test_a_shipped_graph_does_what_its_step_does(name, num_frames):
    ways = shipped_ways(name)
    graphs = GraphFolder(ways.step, (ways.graphs.files[1].parent,))
    graphs.files = {num_frames: graphs.files[num_frames]}
    check_graph(name, num_frames, graphs)


@pytest.mark.skipif(not sums_are_exact(), reason="products of bytes aren't exact here")
@pytest.mark.parametrize("name", ["hear", "encode", "decode"])
def test_a_shipped_graph_of_bytes_does_so_too(name):
    ways = shipped_ways(name)
    graphs = GraphFolder(ways.step, (ways.graphs.faster[1].parent,))
    assert graphs._open(1, graphs.faster[1], "bytes")
    graphs.files = graphs.faster
    check_graph(name, 1, graphs)


def check_graph(name: str, num_frames: int, graphs: GraphFolder) -> None:
    ways = shipped_ways(name)
    graphs.load(num_frames)
    num_steps = max(2, 50 // num_frames)
    x = make_input(name, num_steps * num_frames)
    state = ways.step.init_state(1)
    bound = BoundState(graphs, state)
    for piece in x.split(num_frames * ways.step.unit, dim=1):
        with torch.inference_mode():
            expected, state = ways.step.call(ways.step.network, piece, state)
            state = ways.step.settle(state)
        for (output, _), a, b in zip(ways.step.outputs, bound.step(piece), expected, strict=True):
            if name == "encode":
                assert torch.equal(a, b)
            else:
                assert_near(a, b, output)
    ended = ways.step.settle(bound.read())
    for (part, a), (_, b) in zip(named_tensors(ended), named_tensors(state), strict=True):
        assert_near(a, b, part)


@pytest.mark.parametrize(
    "name, precision, most",
    [
        ("hear", "float32", 840),
        ("encode", "float32", 135),
        ("decode", "float32", 245),
        ("encode", "bytes", 185),
        ("decode", "bytes", 310),
    ],
)
def test_what_runs_of_a_frame_are_few_nodes(name, precision, most, tmp_path, monkeypatch):
    make = onnxruntime.InferenceSession

    def keep(data, options, **kwargs):
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        return make(data, options, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", keep)
    ways = shipped_ways(name)
    graphs = GraphFolder(ways.step, (ways.graphs.files[1].parent,))
    graphs.faster = graphs.faster if precision == "bytes" else {}
    graphs.load(1)
    model = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    assert len(model.graph.node) <= most


def hear(session: Session, sizes: list[int], at: int = 0) -> list[int]:
    """Push speech in pieces of these sizes and finish; the ids of all tokens."""
    events = []
    for size in sizes:
        events += session.push(SPEECH[at : at + size])
        at += size
    events += session.finish()
    return [event.id for event in events if isinstance(event, Token)]


def test_the_same_tokens_come_by_torch_and_by_graphs_however_a_stream_is_cut():

    whole = hear(load_transcriber("torch").session(), [len(SPEECH)])
    live = load_transcriber("onnx").session()
    assert hear(live, [320] * (len(SPEECH) // 320 + 1)) == whole
    assert live.profile == "onnx-float32-cpu"
    for trial in range(2):
        sizes = random_split(len(SPEECH), random.Random(trial))
        sizes = sizes[:20] + [sum(sizes[20:])]
        assert hear(load_transcriber("onnx").session(), sizes) == whole


def test_a_long_piece_goes_by_torch_unless_it_was_said_otherwise():
    session = load_transcriber("auto").session()
    session.push(SPEECH[:32000])
    assert session.profile == "torch-float32-cpu"
    session = load_transcriber("onnx").session()
    session.push(SPEECH[:32000])
    assert session.profile == "onnx-float32-cpu"


def test_a_snapshot_moves_from_path_to_path(caplog):
    whole = hear(load_transcriber("torch").session(), [len(SPEECH)])
    for first, second in (("torch", "onnx"), ("onnx", "torch")):
        session = load_transcriber(first).session()
        events = session.push(SPEECH[:30000])
        saved = session.snapshot()
        assert f'profile\\": \\"{first}-float32-cpu'.encode() in saved
        session = Session.restore(load_transcriber(second), saved)
        with caplog.at_level(logging.INFO):
            ids = hear(session, [len(SPEECH)], at=30000)
        assert [event.id for event in events if isinstance(event, Token)] + ids == whole
        assert f"profile {first}-float32-cpu goes on as {second}-float32-cpu" in caplog.text


def test_a_restored_session_goes_on_by_graphs_to_the_bit():
    transcriber = load_transcriber("onnx")
    once, again = transcriber.session(), transcriber.session()
    for piece in np.split(SPEECH[:16000], 5):
        assert again.push(piece) == once.push(piece)
        again = Session.restore(transcriber, again.snapshot())
        assert again.snapshot() == once.snapshot()


def test_a_state_that_was_read_stays_as_it_was():
    ways = load_codec("onnx").decoder_ways
    x = make_input("decode", 6)
    stepper = Stepper(ways, ways.step.init_state(1))
    stepper.step(x[:, :2])
    state = stepper.state
    kept = [tensor.clone() for _, tensor in named_tensors(state)]
    fork = stepper.fork()
    expected = stepper.step(x[:, 2:])[0]
    for tensor, (_, now) in zip(kept, named_tensors(state), strict=True):
        assert torch.equal(tensor, now)
    assert torch.equal(fork.step(x[:, 2:])[0], expected)


def test_rows_of_a_graph_get_what_each_gets_alone():
    ways = load_codec("onnx").decoder_ways
    x = torch.cat([make_input("decode", 5), make_input("decode", 5)])
    together = BoundState(ways.graphs, ways.step.init_state(2)).step(x)[0]
    for row in range(2):
        alone = BoundState(ways.graphs, ways.step.init_state(1)).step(x[row : row + 1])[0]
        assert torch.equal(together[row : row + 1], alone)


def test_codec_sessions_give_the_same_codes_by_graphs():
    samples = SPEECH[np.newaxis, :16000]
    for backend in ("torch", "onnx"):
        encoder = load_codec(backend).encoder_session()
        codes = np.concatenate([encoder.push(samples), encoder.finish()], axis=2)
        if backend == "torch":
            expected = codes
    assert encoder.profile == "onnx-float32-cpu"
    np.testing.assert_array_equal(codes, expected)


def tiny_folder(tmp_path: Path, name: str = "hear-1.onnx") -> Path:
    """A model folder's graphs, made for another network."""
    (tmp_path / "graphs").mkdir()
    source = shipped_models() / "first-light" / "graphs" / "hear-1.onnx"
    shutil.copy(source, tmp_path / "graphs" / name)
    return tmp_path


def test_another_networks_graph_is_refused_by_name_and_told_of_once(tmp_path, caplog):
    network, folder = make_transcriber().network, tiny_folder(tmp_path)
    with pytest.raises(ModelError, match="hear-1.onnx: not a graph of this model"):
        Transcriber(network, name="t", model_hash="0" * 32, backend="onnx", folder=folder)
    model = Transcriber(network, name="t", model_hash="0" * 32, folder=folder)
    for _ in range(2):
        session = model.session()
        session.push(SPEECH[:2000])
        assert session.profile == "torch-float32-cpu"
    assert caplog.text.count("torch runs instead of graphs") == 1


def test_a_graph_of_another_number_of_frames_is_refused(tmp_path):
    ways = load_transcriber("torch").ways
    folder = tiny_folder(tmp_path, "hear-2.onnx") / "graphs"
    with pytest.raises(ModelError, match="a graph of frames '1', but this model needs '2'"):
        GraphFolder(ways.step, (folder,)).load(2)


def test_a_backend_that_is_not_there_is_refused():
    network = make_transcriber().network
    with pytest.raises(ModelError, match="no graph hear-1.onnx .* make it with 'audiossm export'"):
        Transcriber(network, name="t", model_hash="0" * 32, backend="onnx")
    with pytest.raises(ConfigError, match="'fast' is not one of auto, torch, numba, onnx"):
        Transcriber(network, name="t", model_hash="0" * 32, backend="fast")
    ways = load_codec("torch").decoder_ways
    with pytest.raises(DeviceError, match="backend 'onnx' runs on a CPU, not on cuda"):
        Ways(ways.step, torch.device("cuda"), "onnx")


def test_export_writes_graphs_that_run(tmp_path, capsys, monkeypatch):
    from audiossm.checkpoint import save_model
    from audiossm.config import to_dict

    network = make_audio_codec().network
    tables = {"codec": to_dict(network.config)}
    save_model(tmp_path, "codec", "toy", tables, network.state_dict())
    out = tmp_path / "graphs"
    monkeypatch.setattr("audiossm.graphs.int8.SMALLEST", 500)
    recording = str(SPEECH_FOLDER / "river.flac")
    command = ["export", str(tmp_path), "--frames", "1", "--out", str(out), "--int8", recording]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(out / f"{step}-1{kind}.onnx") for step in ("encode", "decode") for kind in ("", ".int8")
    ]
    whole = AudioCodec.load(tmp_path, backend="onnx-int8").decoder_session()
    exact = AudioCodec.load(tmp_path, backend="torch").decoder_session()
    codes = torch.randint(1000, (1, 4, 20)).numpy()
    expected = exact.push(codes)
    error = np.abs(whole.push(codes) - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.3  # so few channels don't average out
    found = AudioCodec.load(tmp_path, backend="onnx").encoder_session().push(SPEECH[None, :6400])
    codec = AudioCodec.load(tmp_path, backend="torch")
    np.testing.assert_array_equal(found, codec.encoder_session().push(SPEECH[None, :6400]))


def test_export_refuses_wrong_frame_counts(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["export", "first-light", "--frames", "0,1"])
    assert caught.value.code == 2
    assert "'0,1' is not a list of different whole numbers" in capsys.readouterr().err


def test_export_refuses_a_model_that_there_is_not(capsys):
    assert main(["export", "nowhere"]) == 1
    assert "no model 'nowhere'" in capsys.readouterr().err


def test_eight_bits_stay_near_and_do_not_depend_on_what_is_loud_beside_them():
    samples = SPEECH[np.newaxis, :16000]
    decoders, decoded = {}, {}
    encoder = load_codec("torch").encoder_session()
    codes = np.concatenate([encoder.push(samples), encoder.finish()], axis=2)
    for backend in ("torch", "onnx-int8"):
        decoders[backend] = load_codec(backend).decoder_session()
        decoded[backend] = decoders[backend].push(codes)
    assert decoders["onnx-int8"].profile == "onnx-int8-cpu"
    noise = np.square(decoded["onnx-int8"] - decoded["torch"]).sum()
    assert noise < 0.01 * np.square(decoded["torch"]).sum()
    pair = load_codec("onnx-int8").decoder_session(channels=2)
    loud = np.concatenate([codes, np.full_like(codes, 999)])
    np.testing.assert_array_equal(pair.push(loud)[:1], decoded["onnx-int8"])


def test_eight_bits_of_weights_that_were_rounded_are_those_weights():
    for shape in ((300, 320), (50, 7)):
        weight = restore_rows(*round_rows(torch.randn(shape) * torch.rand(shape[0], 1)))
        whole, scale = int8_weights(weight.numpy())
        assert whole.dtype == np.uint8 and scale.dtype == np.float32
        np.testing.assert_array_equal((whole.T - 128.0) * scale[:, np.newaxis], weight.numpy())


def test_most_codes_are_the_same_in_eight_bits():
    codes = {}
    for backend in ("torch", "onnx-int8"):
        encoder = load_codec(backend).encoder_session()
        codes[backend] = np.concatenate([encoder.push(SPEECH[np.newaxis]), encoder.finish()], 2)
    changed = np.mean(codes["onnx-int8"] != codes["torch"])
    assert 0 < changed < 0.15  # with each of its products in 8 bits it is a half


class TwoProducts(torch.nn.Module):
    """The same product twice: of the input, and of the input with its first channel 300 times."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.uneven = torch.nn.Linear(200, 200), torch.nn.Linear(200, 200)
        with torch.no_grad():
            self.uneven.weight.copy_(self.even.weight)
            self.uneven.weight[:, 0] /= 300

    def step(self, x, state):
        large = torch.cat([300 * x[..., :1], x[..., 1:]], dim=-1)
        return (self.even(x), self.uneven(large)), (state[0] + x.mean(),)


def test_a_product_that_one_scale_does_not_serve_stays_in_float32():
    step = Step(
        name="two",
        network=TwoProducts().requires_grad_(False),
        call=TwoProducts.step,
        init_state=lambda batch: (torch.zeros(batch, 1),),
        unit=1,
        width=(200,),
        outputs=(("even", 1), ("uneven", 1)),
        sizes="0" * 32,
    )
    data = export_graph(step, 2)
    model = onnx.load_from_string(quantise_graph(data, step, 2, [torch.randn(1, 40, 200)]))
    kinds = {node.output[0]: node.op_type for node in model.graph.node}
    assert kinds["even"] == "MatMulIntegerToFloat"
    assert kinds["uneven"] in ("Gemm", "MatMul", "Add")
    assert not any("uneven" in t.name and "whole" in t.name for t in model.graph.initializer)
    with pytest.raises(AudioError, match="too short to measure"):
        quantise_graph(data, step, 2, [torch.randn(1, 1, 200)])


def test_a_decoder_takes_eight_bits_only_by_name():
    codec = load_codec("auto")
    assert codec.encoder_session().profile == "numba-float32-cpu"
    assert codec.decoder_session().profile == "numba-float32-cpu"
    assert codec.decoder_session(frames_per_step=50).profile == "torch-float32-cpu"


def test_eight_bits_measured_with_other_weights_are_refused(tmp_path):
    (tmp_path / "graphs").mkdir()
    for path in (shipped_models() / "first-frames" / "graphs").glob("*.int8.onnx"):
        shutil.copy(path, tmp_path / "graphs")
    network = Codec(load_codec("torch").config)
    with pytest.raises(ModelError, match="a graph of weights '.*', but this model needs '.*'"):
        AudioCodec(network, name="c", model_hash="0" * 32, backend="onnx-int8", folder=tmp_path)
