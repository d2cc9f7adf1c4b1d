"""The names of what is measured of a codec's sound."""

__all__ = ["DEFAULT_METRICS", "METRICS"]

METRICS = ("pesq", "stoi", "mel", "sisdr", "f0", "wer")
DEFAULT_METRICS = ("pesq", "stoi", "mel", "sisdr")  # each of the others takes longer than these
