"""What the recipes' command lines share: one line for what is wrong, a bar for terminals only."""

import io
import sys

import pytest

from audiossm.errors import ManifestError
from audiossm_apps.recipe import StepBar, run_recipe


def test_errors_end_in_one_line_and_a_code(capsys):
    def fail(error: BaseException):
        def main() -> None:
            raise error

        return main

    missing = FileNotFoundError(2, "No such file or directory", "runs")
    for error, code, line in (
        (ManifestError("no manifest"), 1, "audiossm: error: no manifest\n"),
        (missing, 1, "audiossm: error: runs: No such file or directory\n"),
        (KeyboardInterrupt(), 130, "audiossm: stopped; the same command goes on"),
    ):
        assert run_recipe(fail(error)) == code
        assert capsys.readouterr().err.startswith(line)
    assert run_recipe(fail(KeyboardInterrupt()), resumes=False) == 130
    assert capsys.readouterr().err == "audiossm: stopped\n"
    assert run_recipe(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        run_recipe(fail(ZeroDivisionError()))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_a_run_is_and_a_file_nothing(monkeypatch):
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        bar = StepBar(100, 40)
        bar.show(50, {"step": 50, "minutes": 1.0, "ctc": 0.25})
        bar.close()
        assert ("ctc 0.25" in stream.getvalue()) is shown
        assert ("50/100" in stream.getvalue()) is shown
        assert "minutes" not in stream.getvalue()
