"""Processes that a process began, and those began, by what they are called (Linux)."""

from pathlib import Path

__all__ = ["find_children"]


def find_children(pid: int, name: str) -> list[int]:
    """Return all below ``pid`` whose command line has ``name``, the oldest first."""
    parents: dict[int, int] = {}
    named: list[tuple[int, int]] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            # after the name in brackets, which may hold anything
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        parents[int(folder.name)] = int(fields[1])
        if name.encode() in command and fields[0] != "Z":
            named.append((int(fields[19]), int(folder.name)))

    def is_below(child: int) -> bool:
        while child > 1:
            if child == pid:
                return True
            child = parents.get(child, 0)
        return False

    return [child for _, child in sorted(named) if is_below(child)]
