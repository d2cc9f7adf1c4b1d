"""A graph as a pure function: the shipped writer's."""

from dataclasses import replace

import pytest
import torch

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.graphs import run_once
from audiossm.models import LoadedWriter, Writer, WriterConfig
from audiossm.nn import map_state, named_tensors
from audiossm_apps.cli import main

TEXT = "they paid three hundred dollars for it and then john went home to new york"


def test_the_shipped_writers_graph_does_what_its_step_does():
    writer = LoadedWriter.load()
    assert writer.ways.choose(1) == "onnx"
    graph = step = writer.init_state()
    for word in TEXT.split():
        x = writer.network.embed(writer.network.config.features([word]).unsqueeze(0))
        before = map_state(torch.clone, graph)
        (by_graph,), after = run_once(writer.ways.graphs, x, graph)
        for (name, old), (_, kept) in zip(named_tensors(graph), named_tensors(before), strict=True):
            assert torch.equal(old, kept), name
        graph = after
        by_step, step = writer.network.step_embedded(x, step)
        torch.testing.assert_close(by_graph, by_step, rtol=1e-4, atol=1e-4)
    for (name, a), (_, b) in zip(named_tensors(graph), named_tensors(step), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("change", [{}, {"trapezoid": False}, {"resonators": 0.5}])
def test_a_writer_of_ones_own_is_exported_and_runs(change, tmp_path, capsys):
    config = WriterConfig.tiny()
    config = replace(config, backbone=replace(config.backbone, **change))
    network = Writer(config)
    save_model(tmp_path / "own", "writer", "", {"writer": to_dict(config)}, network.state_dict())
    slow = LoadedWriter.load(tmp_path / "own")
    assert slow.ways.choose(1) == "torch"
    folder = tmp_path / "own" / "graphs"
    assert main(["export", str(tmp_path / "own"), "--out", str(folder)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "write-1.onnx")]
    fast = LoadedWriter.load(tmp_path / "own")
    assert fast.ways.choose(1) == "onnx"
    a, b = slow.init_state(), fast.init_state()
    for word in ("the", "said", "and"):
        (x, a), (y, b) = slow.step(word, a), fast.step(word, b)
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_a_writer_has_no_graphs_of_8_bits(tmp_path, capsys):
    assert main(["export", "first-draft", "--int8", "a.wav", "--out", str(tmp_path)]) == 1
    assert "no graphs of 8 bits" in capsys.readouterr().err
