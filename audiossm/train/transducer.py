"""A transducer's head: what comes next given what was heard and what was written (RNN-T)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import rnnt_loss

from audiossm.nn import Block, BlockState, Mamba3Config, RMSNorm, where_state
from audiossm.train.losses import send

__all__ = ["Transducer", "transducer_loss"]

BLANK = 0
MULTIPLE = 64  # of labels that the prediction network takes, so that few kernels are made


class Transducer(nn.Module):
    """Prediction network and joiner over a backbone's frames (arXiv:1211.3711).

    The prediction network is an embedding and one layer of the backbone's kind: a letter says
    little without those before it, and a recurrence has them all in a state of fixed size.

    Args:
        d_model: channels of the backbone.
        num_labels: labels and the blank, which is 0 and, for the prediction, the beginning.
        width: channels of the prediction and of the joiner.
        dropout: of the prediction's layer.
    """

    def __init__(
        self, d_model: int, num_labels: int, *, width: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_labels, width)
        mixer = Mamba3Config(d_model=width, d_state=64, head_dim=64, expand=1.0)
        self.layer = Block(mixer, width, dropout=dropout)
        self.norm = RMSNorm(width)
        self.heard_norm = RMSNorm(d_model)
        self.from_heard = nn.Linear(d_model, width)
        self.from_written = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, num_labels)

    def init_state(self, batch: int) -> BlockState:
        """Return the prediction's state before the beginning."""
        return self.layer.init_state(batch)

    def predict(self, labels: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Advance by (rows, labels) ids, ``BLANK`` first of all.

        Returns:
            (rows, labels, width), what each expects after it; and the state.
        """
        hidden, state = self.layer.step(self.embedding(labels), state)
        return self.from_written(self.norm(hidden)), state

    def join(self, heard: Tensor, written: Tensor) -> Tensor:
        """Return logits of what comes next, of all shapes that ``heard`` and ``written`` share."""
        logits: Tensor = self.head(torch.tanh(heard + written))
        return logits

    def listen(self, hidden: Tensor) -> Tensor:
        """Turn (rows, frames, d_model) of the backbone into the joiner's channels."""
        heard: Tensor = self.from_heard(self.heard_norm(hidden))
        return heard

    @torch.no_grad()
    def write(self, hidden: Tensor, frames: Tensor, most: int = 8) -> list[list[int]]:
        """Return the greedy labels of (rows, frames, d_model), ``most`` a frame.

        Args:
            hidden: of the backbone.
            frames: (rows,) valid frames.
            most: labels that a frame may have.
        """
        rows, device = len(hidden), hidden.device
        heard, ends = self.listen(hidden), frames.to(device)
        begin = torch.full((rows, 1), BLANK, device=device)
        written, state = self.predict(begin, self.init_state(rows))
        found = []
        for t in range(hidden.shape[1]):
            going = t < ends
            for _ in range(most):
                label = self.join(heard[:, t], written[:, 0]).argmax(-1)
                label = torch.where(going, label, BLANK)
                going = label != BLANK
                if not bool(going.any()):
                    break
                found.append(label)
                told, after = self.predict(label.unsqueeze(1), state)
                written = torch.where(going.view(-1, 1, 1), told, written)
                state = where_state(going, after, state)
        if not found:
            return [[] for _ in range(rows)]
        table = torch.stack(found, dim=1).tolist()
        return [[label for label in row if label != BLANK] for row in table]


def transducer_loss(
    head: Transducer, hidden: Tensor, frames: Tensor, labels: list[list[int]]
) -> Tensor:
    """Return the transducer's loss per label.

    Args:
        head: of the network.
        hidden: (rows, frames, d_model) after the last layer.
        frames: (rows,) valid frames, int64 on the CPU.
        labels: ids of each row.
    """
    device = hidden.device
    lengths = torch.tensor([len(row) for row in labels])
    rows = [torch.tensor(row, dtype=torch.int64) for row in labels]
    padded = send(nn.utils.rnn.pad_sequence(rows, batch_first=True), device)
    longest = padded.shape[1]
    spare = -(longest + 1) % MULTIPLE
    begun = F.pad(padded, (1, spare), value=BLANK)
    written, _ = head.predict(begun, head.init_state(len(rows)))
    written = written[:, : longest + 1]
    heard = head.listen(hidden[:, : int(frames.max())])
    logits = head.join(heard.unsqueeze(2), written.unsqueeze(1))
    loss = rnnt_loss(
        logits.float(),
        padded.int(),
        send(frames.int(), device),
        send(lengths.int(), device),
        blank=BLANK,
        reduction="sum",
    )
    total: Tensor = loss / max(int(lengths.sum()), 1)
    return total
