"""The recogniser while it is trained: each row has a look-ahead of its own."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from audiossm.config import tell_differences
from audiossm.errors import ConfigError
from audiossm.models import LoadedRecogniser, Recogniser, RecogniserConfig, RecogniserState
from audiossm.nn import AnyLayer, GatedConv, map_state, where_state
from audiossm.train.transducer import Transducer

__all__ = ["Trainee", "capture", "compile_layers", "draw_sample"]


class Trainee(nn.Module):
    """The recogniser over whole rows, with a transducer's head over letters if ``transducer``."""

    transducer: Transducer | None

    def __init__(self, config: RecogniserConfig, *, transducer: bool = False) -> None:
        super().__init__()
        self.recogniser = Recogniser(config)
        sizes = (config.backbone.d_model, len(config.pieces))
        self.transducer = Transducer(*sizes, dropout=config.dropout) if transducer else None
        self.register_buffer("rights", torch.tensor(config.lookahead_frames), persistent=False)
        self.rights: Tensor

    def forward(
        self,
        spectra: Tensor,
        option: Tensor,
        state: RecogniserState,
        origins: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Map spectra to log-probabilities of pieces and of phones, in time with the audio.

        Args:
            spectra: (rows, spectra, 2 * bins), ending with the silence of the longest look-ahead.
            option: (rows,) int64, which look-ahead each row has.
            state: what rows begin with, whatever look-ahead they had.
            origins: (rows,) int64, the row of ``state`` that each row goes on from, or -1 where
                it begins anew; by default all go on from their own.

        Returns:
            (rows, label frames, pieces) and (rows, label frames, phones + 1), float32; the frames
            of that last silence are left out. The second is None without a head for phones. Then
            the state after the silence, without gradients. With a transducer's head, fourth, what
            it hears: (rows, backbone frames, d_model).
        """
        net = self.recogniser
        if origins is not None:
            state = self.begin(state, origins)
        state = state._replace(lookahead=state.lookahead._replace(option=option))
        encoded, encoder = net.encoder.step_spectra(spectra, state.encoder)
        hidden, phones, state = net.step_encoded(encoded, state._replace(encoder=encoder))
        state = map_state(Tensor.detach, state)
        frames = hidden.shape[1] - max(net.config.lookahead_frames)
        late = torch.arange(frames, device=option.device) + self.rights[option].unsqueeze(1)
        heard = pick(hidden, late)
        letters = net.log_probs(heard)
        if phones is not None:
            stacked = phones.view(*hidden.shape[:2], -1)
            phones = pick(stacked, late).reshape(len(phones), -1, phones.shape[-1])
        told = letters, phones, state
        return told if self.transducer is None else (*told, heard)

    def begin(self, state: RecogniserState, origins: Tensor) -> RecogniserState:
        """Return what rows begin with, as ``forward`` has it of a state and their origins."""
        begun = map_state(lambda x: x[origins.clamp(min=0)], state)
        return where_state(origins >= 0, begun, self.recogniser.init_state(len(origins)))

    def begin_from(self, name: str) -> None:
        """Take the weights of another recogniser; other phones, or elsewhere, begin anew.

        Convolutions that it hasn't begin as if they weren't there; those that only it has are
        left out.

        Raises:
            ConfigError: it has other sizes.
            ModelError: there is no such model.
        """
        ours, theirs = self.recogniser, LoadedRecogniser.load(name).network
        if told := tell_differences(sizes(theirs.config), sizes(ours.config)):
            raise ConfigError(f"model {name!r} has other sizes: {told}")
        weights = theirs.state_dict()
        heads = [(c.phones, c.middle_after) for c in (theirs.config, ours.config)]
        anew = [] if heads[0] == heads[1] else ["phones."]
        if theirs.config.conv_kernel != ours.config.conv_kernel:
            anew.append("convs.")
            for conv in ours.gated_convs():
                nn.init.zeros_(conv.out.weight)
        weights = {n: w for n, w in weights.items() if not n.startswith(tuple(anew))}
        ours.load_state_dict(ours.state_dict() | weights)


def sizes(config: RecogniserConfig) -> RecogniserConfig:
    """Return a config without what other weights don't depend on."""
    backbone = replace(config.backbone, dt_min=1e-3, dt_max=0.1)  # where steps once began
    middle = config.lookahead_after
    return replace(
        config, backbone=backbone, phones=(), middle_after=middle, conv_kernel=0, dropout=0.0
    )


def pick(x: Tensor, frames: Tensor) -> Tensor:
    """Take (rows, n) frames of (rows, frames, channels)."""
    return x.gather(1, frames.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def compile_layers(trainee: Trainee) -> None:
    """Compile each layer's step."""
    net, encoder = trainee.recogniser, trainee.recogniser.encoder
    layers: list[AnyLayer | GatedConv] = [*net.blocks(), *net.gated_convs()]
    for layer in layers:
        layer.step = torch.compile(layer.step, dynamic=False)  # type: ignore[method-assign]
    encoder.step_spectra = torch.compile(encoder.step_spectra, dynamic=False)  # type: ignore[method-assign]


def draw_sample(trainee: Trainee, rows: int, num_samples: int) -> tuple[Any, ...]:
    """Return such inputs as the trainee will get; each is a tensor of its own.

    A graph reads its inputs where the sample's lie, so no two of them may be the same.
    """
    net, device = trainee.recogniser, trainee.rights.device
    late = max(net.config.lookahead_frames) * net.config.frame_size
    spectra = net.encoder.stft(torch.zeros(rows, num_samples + late, device=device)).detach()
    option, origins = (torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(2))
    return spectra, option, net.init_state(rows), origins


def capture(trainee: Trainee, rows: int, num_samples: int, *, compiled: bool = True) -> nn.Module:
    """Compile the layers, then capture the network, forward and backward, as CUDA graphs.

    Not ``compiled``, the graphs begin at once, but a step takes longer.
    """
    if compiled:
        compile_layers(trainee)
    sample = draw_sample(trainee, rows, num_samples)
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        trainee(*sample)  # compiles
        # torch's hint knows tensors only, but it flattens what it is given
        torch.cuda.make_graphed_callables(trainee, sample, allow_unused_input=True)
    return trainee  # its forward now replays the graphs
