"""How far a model's CTC spikes lie from the sounds they stand for."""

from dataclasses import dataclass

from audiossm.errors import ConfigError

__all__ = ["SpikeOffsets"]


@dataclass(frozen=True, kw_only=True)
class SpikeOffsets:
    """Label frames from a spike to the edge of what was said, a number for each look-ahead.

    CTC tells a network which labels to put out, not when: spikes are short and mostly late.
    ``tests/proofs/word_times.py --calibrate`` measures these; they stand in a model's config.toml
    as the table ``alignment``. An empty tuple is what nobody measured.
    """

    letters_start: tuple[float, ...] = ()  # of a word, from the first frame of its first letter
    letters_end: tuple[float, ...] = ()  # of a word, from the end of its last letter's last frame
    phones_start: tuple[float, ...] = ()  # the same from its phones
    phones_end: tuple[float, ...] = ()
    phones_inner: tuple[float, ...] = ()  # of a phone inside a word, from its first frame

    def check(self, num_lookaheads: int) -> None:
        """Refuse what can't be.

        Raises:
            ConfigError: not one number for each look-ahead, or an end at or before its start.
        """
        for name, values in vars(self).items():
            if len(values) not in (0, num_lookaheads):
                raise ConfigError(
                    f"alignment.{name} has {len(values)} numbers, expected one for each of "
                    f"{num_lookaheads} look-aheads"
                )
        for kind in ("letters", "phones"):
            starts, ends = getattr(self, f"{kind}_start"), getattr(self, f"{kind}_end")
            if len(starts) != len(ends) or any(
                not start < end + 1 for start, end in zip(starts, ends, strict=True)
            ):
                raise ConfigError(
                    f"alignment.{kind}_start is {starts} and alignment.{kind}_end {ends}: each "
                    "start must be less than its end + 1, or what lasts a frame would end first"
                )
        if len(self.phones_inner) != len(self.phones_start):
            raise ConfigError("alignment needs phones_start, phones_end and phones_inner together")
