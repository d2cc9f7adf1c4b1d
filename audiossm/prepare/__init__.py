"""People's own recordings and texts as manifests and shards that the recipes read, checked."""

from audiossm.prepare.checks import Clip, Limits, inspect, trim
from audiossm.prepare.folder import prepare
from audiossm.prepare.layouts import LAYOUTS, Recording, find_layout, read_layout
from audiossm.prepare.report import Report
from audiossm.prepare.shards import ShardWriter

__all__ = [
    "LAYOUTS",
    "Clip",
    "Limits",
    "Recording",
    "Report",
    "ShardWriter",
    "find_layout",
    "inspect",
    "prepare",
    "read_layout",
    "trim",
]
