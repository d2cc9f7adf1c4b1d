"""One frame of the Mamba-3 mixer (arXiv:2603.15569v1) as a compiled loop."""

import math

import numpy as np
from numpy.typing import NDArray

from audiossm.compiled import compiled, summing
from audiossm.errors import ModelError
from audiossm.loops.elementary import exponential, sigmoid, softplus
from audiossm.loops.layers import add, copy, rms_norm
from audiossm.loops.tables import Tables, TablesWriter, matrix, row
from audiossm.nn import Mamba3

__all__ = ["add_mixer", "mix"]

ZERO, ONE = np.float32(0), np.float32(1)
PI, TURN = np.float32(math.pi), np.float32(2 * math.pi)


def add_mixer(writer: TablesWriter, mixer: Mamba3) -> int:
    """Add what ``mix`` takes, and return where it is.

    Raises:
        ModelError: it is no single-input mixer of one group without a norm, whose states turn
            by their frames alone.
    """
    config = mixer.config
    plain = config.num_groups == 1 and config.a_activation == "heavy_tail"
    plain = plain and config.trapezoid and config.turns and not config.resonators
    if config.is_mimo or mixer.norm is not None or not plain:
        raise ModelError("its mixer is of another kind")
    slowest = 0.0 if config.max_memory is None else -1 / config.max_memory
    at = writer.add(mixer.dt_bias)
    for vector in (mixer.B_norm.weight, mixer.C_norm.weight):
        writer.add(vector)
    for bias in (mixer.B_bias, mixer.C_bias):
        writer.add(bias.squeeze(1))
    writer.add(mixer.D)
    writer.add(np.array([config.a_floor, slowest], np.float32))
    return at


@compiled
def make_step(
    raw_dt: np.float32, raw_a: np.float32, floor: np.float32, slowest: np.float32
) -> tuple[np.float32, np.float32]:
    """Return dt and A dt of one head; as ``audiossm_kernels.projection.make_steps``."""
    dt = softplus(raw_dt)
    rate = ONE + raw_a if raw_a >= ZERO else ONE / (ONE - raw_a)
    return dt, min(-max(rate, floor) * dt, slowest)


@compiled
def turn_pairs(
    x: NDArray[np.float32],
    angle: NDArray[np.float32],
    bias: NDArray[np.float32],
    y: NDArray[np.float32],
) -> None:
    """Write (n,) plus its bias to y, neighbours rotated together by (n / 2 or less,) angles."""
    copy(x, y)
    add(bias, y)
    for i in range(len(angle)):
        cos, sin = np.float32(math.cos(angle[i])), np.float32(math.sin(angle[i]))
        a, b = y[2 * i], y[2 * i + 1]
        y[2 * i] = a * cos - b * sin
        y[2 * i + 1] = a * sin + b * cos


@summing
def advance(
    state: NDArray[np.float32],
    weights: tuple[np.float32, np.float32, np.float32],
    old_value: NDArray[np.float32],
    value: NDArray[np.float32],
    old_key: NDArray[np.float32],
    key: NDArray[np.float32],
    query: NDArray[np.float32],
    y: NDArray[np.float32],
) -> None:
    """Weigh a head's state (P, N) and two outer products, add them up, and read that into y (P,).

    ``weights`` are alpha, beta and gamma: of the state, the frame before and this one.
    """
    alpha, beta, gamma = weights
    for p in range(len(y)):
        old, new, total = beta * old_value[p], gamma * value[p], ZERO
        for n in range(len(query)):
            s = alpha * state[p, n] + old * old_key[n] + new * key[n]
            state[p, n] = s
            total += query[n] * s
        y[p] = total


@compiled
def mix(
    tables: Tables,
    at: int,
    state: NDArray[np.float32],
    projected: NDArray[np.float32],
    y: NDArray[np.float32],
    room: NDArray[np.float32],
) -> None:
    """Do what stands between a mixer's two projections, for a frame, and overwrite the state.

    Args:
        tables: hold what ``add_mixer`` added.
        at: where that is there.
        state: its four parts one after the other: angles (H, S), content (H, P, N), keys (H, N),
            values (H, P).
        projected: (n,), overwritten.
        y: (H P,), the result.
        room: (2 N,), for a key and a query.
    """
    dt_bias, key_norm, query_norm = row(tables, at), row(tables, at + 1), row(tables, at + 2)
    key_bias, query_bias = matrix(tables, at + 3), matrix(tables, at + 4)
    skip, limits = row(tables, at + 5), row(tables, at + 6)
    heads, d_state = key_bias.shape
    inner = len(y)
    head_dim = inner // heads
    key, query = room[:d_state], room[d_state:]
    raw_key = projected[2 * inner : 2 * inner + d_state]
    raw_query = projected[2 * inner + d_state : 2 * (inner + d_state)]
    rest = projected[2 * (inner + d_state) :]
    angles = rest[3 * heads :]
    num_angles = len(angles)
    content = heads * num_angles
    keys = content + inner * d_state
    values = keys + heads * d_state
    rms_norm(raw_key, key_norm, raw_key)
    rms_norm(raw_query, query_norm, raw_query)
    for s in range(num_angles):
        angles[s] = PI * np.float32(math.tanh(angles[s]))
    for h in range(heads):
        dt, adt = make_step(rest[h] + dt_bias[h], rest[heads + h], limits[0], limits[1])
        alpha, gamma = exponential(adt), sigmoid(rest[2 * heads + h]) * dt
        angle = state[h * num_angles : (h + 1) * num_angles]
        for s in range(num_angles):
            turned = (angle[s] + angles[s] * dt) % TURN
            angle[s] = turned if turned < TURN else ZERO
        turn_pairs(raw_key, angle, key_bias[h], key)
        turn_pairs(raw_query, angle, query_bias[h], query)
        first, size = h * head_dim, head_dim * d_state
        value = projected[inner + first : inner + first + head_dim]
        old_key = state[keys + h * d_state : keys + (h + 1) * d_state]
        old_value = state[values + first : values + first + head_dim]
        ssm = state[content + h * size : content + (h + 1) * size].reshape(head_dim, d_state)
        read = y[first : first + head_dim]
        weights = alpha, (dt - gamma) * alpha, gamma
        advance(ssm, weights, old_value, value, old_key, key, query, read)
        for p in range(head_dim):
            gate = projected[first + p]
            read[p] = (read[p] + skip[h] * value[p]) * gate * sigmoid(gate)
        copy(key, old_key)
        copy(value, old_value)
