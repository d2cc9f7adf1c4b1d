"""A generator at work: a step for each frame, what it made fed back to it, codes whole at last."""

from copy import copy
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiossm.decoding import sampling as drawing
from audiossm.decoding.sampling import Sampling, choose_codes, draw
from audiossm.errors import ConfigError, SessionError
from audiossm.graphs import Stepper
from audiossm.models import GeneratorState, LoadedGenerator, Voice
from audiossm.streaming.snapshot import Arrays, fill_state, state_arrays

__all__ = ["CodeMaker"]

Codes = NDArray[np.int64]
MAX_SEED = 2**63


class CodeMaker:
    """The loop of one stream.

    Group g of a frame is made g steps after the frame's first one: so a frame is whole
    ``num_groups - 1`` steps late.

    Args:
        generator: the model.
        voice: who speaks, and what the state begins from.
        pace: the logarithm of how much longer than usual phones are.
        sampling: how codes are drawn.
        seed: the same one, and the same steps, give the same codes.

    Attributes:
        end_logit: of the newest step, that the unit ends with it.
        num_steps: in all; the random numbers of a step are counted by it.
        num_since: steps since the state began from the voice's.
    """

    def __init__(
        self,
        generator: LoadedGenerator,
        voice: Voice,
        *,
        pace: float,
        sampling: Sampling,
        seed: int,
    ) -> None:
        check_seed(seed)
        self.generator, self.voice, self.sampling, self.seed = generator, voice, sampling, seed
        config = generator.config
        self.num_groups, self.none = config.num_groups, config.num_codes
        self.temperatures = sampling.temperatures(self.num_groups)
        self.who = generator.tell_voice(voice.vector, pace)
        # where there is no text, there is no pace: so it was trained
        self.who_silent = generator.tell_voice(voice.vector, 0.0)
        self.no_text = generator.read(np.zeros((config.window, 3), np.int64))
        self.stepper = Stepper(generator.ways, self._first_state(), 1, generator.seats)
        self.num_steps, self.end_logit = 0, 0.0
        self.num_since = 0
        self.late = self._no_codes()

    def restart(self) -> None:
        """Begin again from the voice's state, with nothing said."""
        self.stepper.state = self._first_state()
        self.num_since, self.late = 0, self._no_codes()

    def fork(self) -> Self:
        """Return a second one that goes on from here; neither disturbs the other."""
        fork = copy(self)  # arrays are made anew, never written into
        fork.stepper = self.stepper.fork()
        return fork

    def tell(self, text: NDArray[np.float32] | None, age: int = 0) -> Tensor:
        """Return what the network is to be given next, (1, 1, d_model).

        Args:
            text: of the unit that is being said, as ``LoadedGenerator.read`` returns it; None
                where there is no text.
            age: for how many frames it has been said.
        """
        if text is None:
            return self.generator.embed(self.late[-1], self.no_text, 0, self.who_silent)
        return self.generator.embed(self.late[-1], text, age, self.who)

    def take(self, outputs: Tensor, known: Codes | None = None, num_over: int = 0) -> Codes | None:
        """Take what the network put out, (1, 1, ``num_outputs``), and draw codes from it.

        Args:
            outputs: of the step.
            known: (groups,) codes that aren't to be drawn; -1 where they are.
            num_over: how many groups, the first ones, have made their last frame.

        Returns:
            (groups,): the codes of the frame that is whole now, if there is one.

        Raises:
            SessionError: the outputs are no numbers.
        """
        values = outputs.numpy().reshape(-1)
        if not np.isfinite(values).all():
            raise SessionError(
                "the network says what is no number: this session's state is spoiled"
            )
        codes = choose_codes(
            values[:-1].reshape(self.num_groups, self.none),
            draw(self.seed, drawing.CODES, self.num_steps, self.num_groups),
            self.temperatures,
            self.sampling.top_k,
        )
        if known is not None:
            codes = np.where(known < 0, codes, known)
        codes[self.num_since + 1 :] = self.none  # their first frame hasn't come
        codes[:num_over] = self.none
        self.late = np.concatenate([self.late[1:], codes[np.newaxis]])
        self.end_logit = float(values[-1])
        self.num_steps, self.num_since = self.num_steps + 1, self.num_since + 1
        return self.late.diagonal().copy() if self.num_since >= self.num_groups else None

    def arrays(self) -> Arrays:
        """Name every array that a snapshot stores."""
        counters = np.array([self.num_steps, self.num_since], np.int64)
        return state_arrays(self.stepper.state, "network") | {"late": self.late, "steps": counters}

    def load(self, arrays: Arrays, profile: str) -> None:
        """Go on from arrays that are known to fit, made by the arithmetic of ``profile``."""
        self.stepper.state = fill_state(self.stepper.state, "network", arrays)
        self.stepper.come_from(profile)
        self.late = np.asarray(arrays["late"], np.int64)
        self.num_steps, self.num_since = (int(count) for count in arrays["steps"])

    def _first_state(self) -> GeneratorState:
        if self.voice.state is not None:
            return self.voice.state
        return self.generator.network.init_state(1)

    def _no_codes(self) -> Codes:
        return np.full((self.num_groups, self.num_groups), self.none, np.int64)


def check_seed(seed: int) -> None:
    """Refuse a seed that can't be.

    Raises:
        ConfigError: it is negative, or 2^63 or more.
    """
    if not 0 <= seed < MAX_SEED:
        raise ConfigError(f"seed is {seed}, must be 0 or more, and below 2^63")
