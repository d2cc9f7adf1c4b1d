"""A trained network as the beginning of a deeper one."""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from audiossm.checkpoint import ModelFolder, load_weights, read_weights
from audiossm.config import from_dict, tell_differences
from audiossm.errors import ConfigError, ModelError
from audiossm.models.generator import Generator, GeneratorConfig

__all__ = ["begin_generator", "deepen"]

LAYER = re.compile(r"layers\.(\d+)\.(.+)")
OUTPUTS = ("mixer.out_proj.", "mlp.fc2.")  # what a layer adds comes out of these


def begin_generator(generator: Generator, folder: ModelFolder) -> None:
    """Take the weights of a model; where it has fewer layers, new ones stand between them.

    Raises:
        ConfigError: it has other sizes.
        ModelError: it is no generator, or damaged.
    """
    ours, theirs = generator.config, generator.config
    if folder.kind == "generator":
        theirs = from_dict(GeneratorConfig, folder.config.get("generator", {}), "generator")
    before, after = theirs.backbone.num_layers, ours.backbone.num_layers
    backbone = replace(theirs.backbone, num_layers=max(before, after))
    alike = replace(theirs, backbone=backbone, dropout=ours.dropout)
    try:
        if before >= after:
            load_weights(folder, generator)
            return
        if theirs.backbone.attention_layers:
            raise ConfigError(
                f"model {folder.name!r} has layers of attention, and no deeper one can begin from "
                f"such: take num_layers = {before}"
            )
        generator.load_state_dict(deepen(read_weights(folder), before, after))
    except (ModelError, RuntimeError) as exc:
        if told := tell_differences(alike, ours):
            raise ConfigError(f"model {folder.name!r} has other sizes: {told}") from exc
        if isinstance(exc, ModelError):
            raise
        raise ModelError(f"{folder.weights}: config and weights are not of the same model") from exc


def deepen(weights: Mapping[str, Tensor], before: int, after: int) -> dict[str, Tensor]:
    """Put new layers between those of a network, evenly; it does what it did.

    A new layer is the one in front of it again, but adds nothing: where its two branches end it has
    zeros (Chen et al., "Net2Net", arXiv:1511.05641, for residual networks). Their gradients aren't.

    Args:
        weights: a state dict; those of layer i are named ``layers.i.*``, with the branches
            ``mixer`` and ``mlp``.
        before: its layers, at least one.
        after: layers of the deeper one, at least as many.
    """
    source = [at * before // after for at in range(after)]  # of each new layer
    deeper = {name: tensor for name, tensor in weights.items() if not LAYER.fullmatch(name)}
    for at, old in enumerate(source):
        again = at > 0 and source[at - 1] == old
        for name, tensor in weights.items():
            match = LAYER.fullmatch(name)
            if match and int(match[1]) == old:
                silent = again and match[2].startswith(OUTPUTS)
                new = torch.zeros_like(tensor) if silent else tensor.clone()
                deeper[f"layers.{at}.{match[2]}"] = new
    return deeper
