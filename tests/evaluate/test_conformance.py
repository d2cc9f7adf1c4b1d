"""Golden arrays of an independent implementation, and what the replay says of damaged ones."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from audiossm.errors import AudioSSMError
from audiossm.evaluate.conformance import replay, run_conformance

GOLDEN = Path(__file__).parents[1] / "golden"


def rewrite(name: str, target: Path, **changes: object) -> Path:
    """Copy a golden file with some arrays changed, or left out where None."""
    with np.load(GOLDEN / name) as file:
        arrays = {key: file[key] for key in file.files} | changes
    np.savez(target, **{key: array for key, array in arrays.items() if array is not None})
    return target


def golden_array(name: str, key: str) -> np.ndarray:
    with np.load(GOLDEN / name) as file:
        return file[key].copy()


def test_every_golden_file_is_met_in_every_way():
    results = run_conformance(GOLDEN)
    assert {result.file for result in results} == {path.name for path in GOLDEN.glob("*.npz")}
    assert {result.kind for result in results} == {
        "ops reference",
        "ops chunked",
        "ops stepwise",
        "layer whole",
        "layer stepwise",
        "lm whole",
        "lm stepwise",
    }
    assert [result for result in results if not result.passed] == []
    assert max(result.max_rel_error for result in results) < 5e-6


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ops_siso_state_g2.npz", "out"),
        ("ops_siso_state_g2.npz", "out_angle"),
        ("ops_mimo_r3_state.npz", "out_k"),
        ("layer_mimo_r2_g2.npz", "state_ssm"),
        ("lm_siso_norms.npz", "logits"),
    ],
)
def test_one_wrong_number_fails_and_names_its_array(tmp_path, name, key):
    array = golden_array(name, key)
    array.flat[array.size // 2] += 1e-3 * np.abs(array).max()
    results = replay(rewrite(name, tmp_path / name, **{key: array}))
    assert {result.passed for result in results} == {False}
    assert {result.worst_key for result in results} == {key}
    for result in results:
        assert result.max_rel_error == pytest.approx(1e-3, rel=0.05)


def test_a_wrong_input_fails(tmp_path):
    array = golden_array("ops_mimo_r4.npz", "trap")
    array.flat[5] += 1.0
    results = replay(rewrite("ops_mimo_r4.npz", tmp_path / "a.npz", trap=array))
    assert [result.passed for result in results] == [False] * 3


def test_a_nan_fails(tmp_path):
    array = golden_array("ops_siso_zero.npz", "out")
    array.flat[0] = np.nan
    results = replay(rewrite("ops_siso_zero.npz", tmp_path / "a.npz", out=array))
    assert [result.passed for result in results] == [False] * 3
    assert results[0].max_rel_error == math.inf


def test_angles_are_compared_on_the_circle(tmp_path):
    array = golden_array("layer_siso.npz", "state_angle") + np.float32(2 * np.pi)
    results = replay(rewrite("layer_siso.npz", tmp_path / "a.npz", state_angle=array))
    assert [result.passed for result in results] == [True] * 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"q": None}, "nothing to replay: expected an array named q or u or ids"),
        ({"out_k": None}, "no array 'out_k'"),
        ({"kind": np.array("mixed")}, "kind is 'mixed', expected 'siso' or 'mimo'"),
        ({"D": np.zeros(3, np.float32)}, r"ssm_scan: params.d_skip has shape (3,), not (4,)"),
        ({"out": np.zeros(3, np.float32)}, "out is (3,) in the file, computed is (2, 45, 4, 8)"),
    ],
)
def test_a_file_that_can_not_be_replayed_is_one_failing_row_with_the_reason(
    tmp_path, changes, reason
):
    (result,) = replay(rewrite("ops_siso_zero.npz", tmp_path / "a.npz", **changes))
    assert not result.passed
    assert result.worst_key == reason


@pytest.mark.parametrize("change", [{"config": np.array("{")}, {"config": np.array("[1]")}])
def test_a_broken_config_is_a_failing_row(tmp_path, change):
    (result,) = replay(rewrite("layer_siso.npz", tmp_path / "a.npz", **change))
    assert not result.passed


def test_missing_parameters_are_a_failing_row(tmp_path):
    changes = {"param.dt_bias": None}
    (result,) = replay(rewrite("layer_siso.npz", tmp_path / "a.npz", **changes))
    assert "dt_bias" in result.worst_key


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04junk"])
def test_a_damaged_file_fails_and_the_others_still_run(tmp_path, data):
    (tmp_path / "a.npz").write_bytes(data)
    shutil.copy(GOLDEN / "ops_siso_state_one_token.npz", tmp_path / "b.npz")
    results = run_conformance(tmp_path)
    assert [result.passed for result in results] == [False, True, True, True]
    assert results[0].kind == "unknown"
    assert "can't read it as npz" in results[0].worst_key


def test_a_single_array_is_not_a_golden_file(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    (result,) = replay(tmp_path / "a.npz")
    assert "can't read it as npz" in result.worst_key


def test_a_truncated_file_fails(tmp_path):
    data = (GOLDEN / "ops_siso_zero.npz").read_bytes()
    for size in (100, len(data) // 2, len(data) - 10):
        path = tmp_path / f"{size}.npz"
        path.write_bytes(data[:size])
        (result,) = replay(path)
        assert not result.passed


def test_a_folder_without_golden_files_is_an_error(tmp_path):
    with pytest.raises(AudioSSMError, match=r"no golden files here, expected \*.npz"):
        run_conformance(tmp_path)
