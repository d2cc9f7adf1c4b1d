"""Several streams of one network in one batch, each at its own pace."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiossm.errors import ShapeError
from audiossm.models import Recogniser, RecogniserState
from audiossm.nn import stack_states, unstack_states, where_state

__all__ = ["step_rows"]


def step_rows(
    network: Recogniser, rows: Sequence[Tensor], states: Sequence[RecogniserState]
) -> tuple[list[Tensor], list[RecogniserState]]:
    """Advance streams together; each gets what it would get alone.

    A row that has ended before its batch mates is fed silence, and its state stays as it was.

    Args:
        network: the one that all states belong to.
        rows: for each stream (samples,) in [-1, 1], a multiple of ``config.frame_size``; the
            lengths may differ, and a row may be empty.
        states: for each stream its state, of batch 1; left as they were.

    Returns:
        for each stream the log-probabilities (label frames, symbols) of pieces and, if the network
        has a head for them, of phones; and its new state.

    Raises:
        ShapeError: another number of states than of rows, or a row that is no multiple.
    """
    if not rows or len(rows) != len(states):
        raise ShapeError(f"step_rows got {len(rows)} rows and {len(states)} states")
    lengths = torch.tensor([len(row) for row in rows])
    x = pad_sequence(list(rows), batch_first=True)
    state = stack_states(list(states))
    frame = network.config.encoder.frame_size
    config = network.config
    num_symbols = len(config.pieces) + (len(config.phones) + 1 if config.phones else 0)
    outputs = [x.new_empty(len(rows), 0, num_symbols)]
    at = 0
    # a block ends where a row ends: within a block each row runs or rests
    for end in sorted({length for length in lengths.tolist() if length}):
        letters, phones, new_state = network.hear(x[:, at:end], state)
        state = where_state((lengths >= end).to(x.device), new_state, state)
        outputs.append(letters if phones is None else torch.cat([letters, phones], dim=-1))
        at = end
    log_probs = torch.cat(outputs, dim=1)
    kept = [y[: length // frame] for y, length in zip(log_probs, lengths.tolist(), strict=True)]
    return kept, unstack_states(state, len(rows))
