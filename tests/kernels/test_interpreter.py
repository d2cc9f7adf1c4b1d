"""Where there is no card, the tests of Triton's kernels run in Triton's interpreter.

Triton has to know before it is imported that it interprets, so they run in processes of their own:
two at a time, for most of it is Python.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
# of about the same length
SHARES = (
    ("triton_scan", "conv_step", "fused", "triton_partition"),
    ("triton_scan_grad", "triton_step", "triton_ctc"),
)


def test_every_file_that_can_be_interpreted_is():
    able = {
        p.stem.removeprefix("test_") for p in HERE.glob("*.py") if "\nINTERPRETED" in p.read_text()
    }
    assert able == {name for share in SHARES for name in share}


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton runs in its tests anyway")
def test_the_kernels_in_tritons_interpreter():
    pytest.importorskip("triton")
    begun = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(str(HERE / f"test_{name}.py") for name in share),
            ],
            env=os.environ | {"TRITON_INTERPRET": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for share in SHARES
    ]
    told = [process.communicate()[0] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], "\n".join(told)
    assert all(" passed" in text for text in told)
