"""The recogniser while it is trained: with a phone head at half depth."""

import torch
from torch import Tensor, nn

from audiossm.models import Recogniser, RecogniserConfig

__all__ = ["Trainee"]


class Trainee(nn.Module):
    """The recogniser and what only training needs.

    Args:
        config: the recogniser's sizes.
        num_phones: phone symbols, the blank not counted.
    """

    def __init__(self, config: RecogniserConfig, num_phones: int) -> None:
        super().__init__()
        self.recogniser = Recogniser(config)
        self.phone_norm = nn.LayerNorm(config.backbone.d_model)
        self.phone_head = nn.Linear(config.backbone.d_model, config.stack * (num_phones + 1))
        self.register_buffer("rights", torch.tensor(config.lookahead_frames), persistent=False)
        self.rights: Tensor

    def forward(self, spectra: Tensor, option: Tensor) -> tuple[Tensor, Tensor]:
        """Map spectra to log-probabilities of pieces and of phones, in time with the audio.

        Args:
            spectra: (rows, spectra, 2 * bins), ending with the silence of the longest look-ahead.
            option: (rows,) int64, which look-ahead each row has.

        Returns:
            (rows, label frames, pieces) and (rows, label frames, phones + 1), float32; the frames
            of that last silence are left out.
        """
        net = self.recogniser
        state = net.init_state(len(spectra))
        state = state._replace(lookahead=state.lookahead._replace(option=option))
        encoded, encoder = net.encoder.step_spectra(spectra, state.encoder)
        hidden, middle, _ = net.step_encoded(encoded, state._replace(encoder=encoder))
        frames = hidden.shape[1] - max(net.config.lookahead_frames)
        late = torch.arange(frames, device=option.device) + self.rights[option].unsqueeze(1)
        index = late.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        phones = self.phone_head(self.phone_norm(middle.gather(1, index))).float()
        phones = phones.unflatten(-1, (net.config.stack, -1)).flatten(1, 2)
        return net.log_probs(hidden.gather(1, index)), phones.log_softmax(-1)
