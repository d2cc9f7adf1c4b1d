"""Mimi, EnCodec and DAC of random weights, small enough for tests, as transformers writes them."""

from pathlib import Path
from typing import Any

import torch

__all__ = ["KINDS", "save_foreign_codec"]

KINDS = ("mimi", "encodec", "dac")


def save_foreign_codec(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a model's folder: 24 kHz and 80 ms, 24 kHz and 13.3 ms, 16 kHz and 20 ms."""
    from transformers import (
        DacConfig,
        DacModel,
        EncodecConfig,
        EncodecModel,
        MimiConfig,
        MimiModel,
    )

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any
        if kind == "mimi":
            sizes: dict[str, Any] = {"hidden_size": 32, "num_filters": 4, "codebook_size": 64}
            sizes |= {"codebook_dim": 16, "vector_quantization_hidden_dimension": 16}
            sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
            sizes |= {"intermediate_size": 32, "upsample_groups": 32, "num_quantizers": 6}
            model = MimiModel(MimiConfig(**sizes))
        elif kind == "encodec":
            sizes = {"hidden_size": 16, "num_filters": 4, "codebook_size": 1024}
            model = EncodecModel(EncodecConfig(**sizes, target_bandwidths=[1.5, 3.0]))
        else:
            sizes = {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "n_codebooks": 4}
            sizes |= {"downsampling_ratios": [2, 4, 5, 8], "codebook_size": 64}
            model = DacModel(DacConfig(**sizes))
        scale = {"mimi": 1.0, "encodec": 0.2, "dac": 1.0}[kind]  # as large as what is coded
        for name, tensor in model.state_dict().items():
            if name.endswith(("embed", "embed_sum", "codebook.weight")):  # made as zeros
                tensor.copy_(scale * torch.randn(tensor.shape))
            elif name.endswith(("cluster_usage", "inited")):
                tensor.fill_(1)
            elif name.startswith("encoder.") and kind == "encodec":
                # as it is made, its outputs hardly depend on what it hears
                tensor.mul_(3.0 if name.endswith("original0") else 0.0 if "bias" in name else 1.0)
        model.save_pretrained(folder)
    return folder
