"""Products of bytes are as exact as those of float32, or aren't taken."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from audiossm import AudioCodec
from audiossm.checkpoint import shipped_models
from audiossm.codec import Codec
from audiossm.graphs import probe
from audiossm.graphs.exact import Split
from audiossm.graphs.int8 import Product, are_bytes, byte_weights
from audiossm.graphs.session import GraphFolder
from audiossm.rounding import restore_rows, round_rows
from audiossm_apps.cli import main
from tiny_model import read_speech
from toy_codec import make_codec

SPEECH = read_speech()
WIDTH, OUTPUTS = 320, 64
needs_exact_sums = pytest.mark.skipif(
    not probe.sums_are_exact(), reason="this processor's products of bytes aren't exact"
)


def multiply(x: np.ndarray, weight: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    """Run one product of x (1, rows, in) and weight (out, in), plus 1."""
    split, kind = Split(onnx), onnx.TensorProto.FLOAT
    numbers, scale = byte_weights(weight)
    tensors = {"bytes.w": numbers, "scale.w": scale, "b": np.ones(len(weight), np.float32)}
    nodes = split.product(Product("x", "y", "w", weight.shape, None, "b"), x.shape[1], limits)
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, [1, x.shape[1], len(weight)])],
        [*split.tensors, *(numpy_helper.from_array(t, name) for name, t in tensors.items())],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


def make_weight() -> np.ndarray:
    return restore_rows(*round_rows(torch.randn(OUTPUTS, WIDTH) * torch.rand(OUTPUTS, 1))).numpy()


@needs_exact_sums
@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("limits", [(-20.0, 20.0), (-0.17, 60.0), (-0.17, 1.0), None])
def test_a_product_of_bytes_errs_like_one_in_float32(limits, num_rows):
    weight = make_weight()
    low, high = limits or (-1e4, 1e4)
    for size in (1.0, 0.01, 0.0):
        x = torch.randn(1, num_rows, WIDTH).mul(size * high / 4).clamp(low, high).numpy()
        # both ends, and what lies next to zero
        x[..., :6] = size * np.array([low, high, 1e-3 * low, 1e-3 * high, 0.0, -0.0])
        expected = x.astype(np.float64) @ weight.T.astype(np.float64) + 1.0
        length = np.linalg.norm(x, axis=-1, keepdims=True) if limits is None else high - low
        # a millionth of the largest value in each of the sum's parts, at random
        allowed = 1e-6 * length * np.linalg.norm(weight, axis=1) + 1e-6
        assert (np.abs(multiply(x, weight, limits) - expected) <= allowed).all(), size


def test_rows_are_measured_each_for_itself():
    weight = make_weight()
    x = torch.randn(1, 2, WIDTH).numpy()
    loud = np.concatenate([x[:, :1], 1e4 * x[:, 1:]], axis=1)
    both, beside = multiply(x, weight, None), multiply(loud, weight, None)
    np.testing.assert_array_equal(both[:, 0], beside[:, 0])


def test_the_probe_is_what_it_says_and_notices_wrong_sums(monkeypatch):
    made, kept = (onnx.load_from_string(d) for d in (probe.make_probe(), probe.PROBE.read_bytes()))
    assert made.graph == kept.graph
    make = probe.make_weight
    # one product of the largest bytes too few, as where pairs are added in 16 bits
    monkeypatch.setattr(probe, "make_weight", lambda: make() - np.eye(*make().shape, dtype=np.int8))
    assert not probe.sums_are_exact.__wrapped__()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A toy codec whose weights are bytes, with graphs of one frame."""
    from audiossm.checkpoint import save_model
    from audiossm.config import to_dict

    network = make_codec()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 2:
                weight.copy_(restore_rows(*round_rows(weight)))
    tables = {"codec": to_dict(network.config)}
    save_model(tmp_path, "codec", "toy", tables, network.state_dict())
    return tmp_path


def test_export_writes_such_graphs_and_they_run(folder, capsys, monkeypatch):
    monkeypatch.setattr("audiossm.graphs.int8.SMALLEST", 500)
    out = folder / "graphs"
    assert main(["export", str(folder), "--frames", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(out / f"{step}-1{kind}.onnx")
        for step in ("encode", "decode")
        for kind in ("", ".bytes")
    ]
    codec = AudioCodec.load(folder, backend="onnx")
    exact = AudioCodec.load(folder, backend="torch")
    codes = exact.encoder_session().push(SPEECH[None, :6400])
    np.testing.assert_array_equal(codec.encoder_session().push(SPEECH[None, :6400]), codes)
    expected = exact.decoder_session().push(codes)
    np.testing.assert_allclose(codec.decoder_session().push(codes), expected, atol=1e-5, rtol=0)
    for ways in (codec.encoder_ways, codec.decoder_ways):
        if probe.sums_are_exact():
            assert has_bytes(ways.graphs)


def has_bytes(graphs: GraphFolder) -> bool:
    found = graphs.load(1).get_modelmeta().custom_metadata_map
    return "weights" in found


def test_a_live_stream_by_bytes_is_what_one_call_by_torch_gives():
    live, whole = AudioCodec.load(backend="onnx"), AudioCodec.load(backend="torch")
    samples = SPEECH[np.newaxis, :48000].copy()
    encoder, decoder = live.encoder_session(), live.decoder_session()
    codes, pieces = [], []
    for at in range(0, samples.shape[1], 320):
        codes.append(encoder.push(samples[:, at : at + 320]))
        pieces.append(decoder.push(codes[-1]))
    assert encoder.profile == "onnx-float32-cpu"
    if probe.sums_are_exact():
        assert has_bytes(live.encoder_ways.graphs) and has_bytes(live.decoder_ways.graphs)
    expected = whole.network.encode(torch.from_numpy(samples))
    np.testing.assert_array_equal(np.concatenate(codes, axis=2), expected.numpy())
    with torch.inference_mode():
        decoded = whole.network.decode(expected)[:, whole.network.delay :].numpy()
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), decoded, atol=1e-5, rtol=0)


def test_graphs_of_other_weights_or_on_another_processor_give_way(tmp_path, monkeypatch):
    codec = AudioCodec.load(backend="torch")
    shipped = shipped_models() / "first-frames" / "graphs"
    for name in ("encode-1.onnx", "encode-1.bytes.onnx"):
        shutil.copy(shipped / name, tmp_path)
    step = codec.encoder_ways.step
    monkeypatch.setattr("audiossm.graphs.session.sums_are_exact", lambda: True)
    assert has_bytes(GraphFolder(step, (tmp_path,)))
    other = AudioCodec(Codec(codec.config), name="c", model_hash="0" * 32, backend="torch")
    assert not has_bytes(GraphFolder(other.encoder_ways.step, (tmp_path,)))
    monkeypatch.setattr("audiossm.graphs.session.sums_are_exact", lambda: False)
    assert not has_bytes(GraphFolder(step, (tmp_path,)))


def test_weights_that_are_no_bytes_are_told_apart():
    weight = torch.from_numpy(make_weight())
    assert are_bytes(weight)
    weight[3, 5] *= 1.001
    assert not are_bytes(weight)
