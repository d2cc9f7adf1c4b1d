"""What ``audiossm mic`` shows: the text as it comes, and on a terminal a line about the sound."""

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from audiossm_apps.ears import Heard
from audiossm_apps.outputs import LiveText, write_text

if TYPE_CHECKING:
    from audiossm.streaming import Word

__all__ = ["MicView", "TerminalView", "TextView", "describe_sound"]

QUIETEST_DB, BAR_WIDTH = -60.0, 20


class MicView(Protocol):
    """Takes what is heard."""

    def words(self, words: Sequence[Heard], unfinished: str) -> None:
        """Take new words, and what may still change."""

    def sound(self, description: str) -> None:
        """Take the line about the sound."""

    def close(self) -> None:
        """End the text."""


class TextView:
    """Plain text on standard output, word by word, with a new line after a pause."""

    begun = False

    def words(self, words: Sequence[Heard], unfinished: str) -> None:
        """Write the words."""
        for word in words:
            between = "\n" if word.begins else " "
            write_text(sys.stdout, f"{between}{word.text}" if self.begun else word.text)
            self.begun = True

    def sound(self, description: str) -> None:
        """Leave it out: standard output is for the text."""

    def close(self) -> None:
        """End the line."""
        if self.begun:
            write_text(sys.stdout, "\n")


class TerminalView(LiveText):
    """Text that grows on a terminal, and the line about the sound below it."""

    description = ""

    def words(self, words: Sequence[Heard], unfinished: str) -> None:
        """Show the words, on a new line after a pause, and dim what may still change."""
        for word in words:
            if word.begins and self.line:
                self.console.print(self.line)
                self.line = ""
            self.word(cast("Word", word))  # its text is all that is shown
        self.unfinished(unfinished)

    def sound(self, description: str) -> None:
        """Show the line."""
        if description != self.description:
            self.description = description
            self._show()

    def close(self) -> None:
        """Leave the text alone on the terminal."""
        super().close()
        if self.line:
            self.console.print(self.line)
            self.line = ""

    def _show(self) -> None:
        from rich.live import Live
        from rich.text import Text

        if self.live is None:
            self.live = Live(console=self.console, transient=True, auto_refresh=False)
            self.live.start()
        partial = f" {self.partial}" if self.line else self.partial
        below = (f"\n{self.description}", "cyan")
        self.live.update(Text.assemble(self.line, (partial, "dim"), below), refresh=True)


def describe_sound(
    peak: float, duration_s: float, *, waiting_s: float, overflows: int, dropped_s: float, note: str
) -> str:
    """Describe the sound in a line: level of the magnitude ``peak``, time, and what goes wrong."""
    level = max(QUIETEST_DB, 20 * math.log10(max(peak, 1e-6)))
    full = round(BAR_WIDTH * (1 - level / QUIETEST_DB))
    minutes, seconds = divmod(int(duration_s), 60)
    parts = [
        f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] "
        + ("too loud" if peak >= 0.999 else f"{level:4.0f} dB"),
        f"{minutes}:{seconds:02}",
    ]
    if waiting_s >= 1:
        parts.append(f"{waiting_s:.0f} s behind")
    if overflows:
        parts.append(f"overflows: {overflows}")
    if dropped_s:
        parts.append(f"{dropped_s:.1f} s lost")
    if note:
        parts.append(note)
    return "  ".join(parts)
