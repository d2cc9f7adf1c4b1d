"""The steps of networks as ONNX graphs: exported by torch, run by ONNX Runtime, or not at all."""

from audiossm.graphs.pure import run_once
from audiossm.graphs.step import FRAME_COUNTS, Step, hash_sizes
from audiossm.graphs.stepper import Backend, Seat, Seats, Stepper, Ways, cache_folder, name_profile

__all__ = [
    "FRAME_COUNTS",
    "Backend",
    "Seat",
    "Seats",
    "Step",
    "Stepper",
    "Ways",
    "cache_folder",
    "hash_sizes",
    "name_profile",
    "run_once",
]
