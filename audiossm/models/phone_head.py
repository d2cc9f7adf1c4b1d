"""Phones half-way up a backbone: they are put out, and what lies above is told about them."""

from torch import Tensor, nn

from audiossm.nn import RMSNorm

__all__ = ["PhoneHead"]


class PhoneHead(nn.Module):
    """CTC over phones between two layers, with self-conditioning (arXiv:2104.02724).

    Frame by frame, so it has no state. It begins as if it weren't there: the layers above see
    nothing of the phones until training says how.

    Args:
        d_model: channels of the backbone.
        num_symbols: phones and the blank, which is symbol 0.
        stack: label frames in a backbone frame.
    """

    def __init__(self, d_model: int, num_symbols: int, stack: int) -> None:
        super().__init__()
        self.num_symbols = num_symbols
        self.norm = RMSNorm(d_model)
        self.head = nn.Linear(d_model, stack * num_symbols)
        self.condition = nn.Linear(stack * num_symbols, d_model, bias=False)
        nn.init.zeros_(self.condition.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Read the phones of (batch, frames, d_model).

        Returns:
            log-probabilities (batch, label frames, num_symbols), float32; and ``x`` with what the
            layers above are told.
        """
        logits: Tensor = self.head(self.norm(x)).float()
        log_probs = logits.view(len(x), -1, self.num_symbols).log_softmax(-1)
        told: Tensor = self.condition(log_probs.exp().view(logits.shape).to(x.dtype))
        return log_probs, x + told
