"""Kept snapshots: whole or not at all, signed, owned by one, forgotten in time."""

import os
import stat
import time

import pytest

from audiossm.errors import SnapshotError
from audiossm.streaming.store import FolderStore, MemoryStore, SupersededError


@pytest.fixture(params=["memory", "folder"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "kept")


def test_what_is_kept_can_be_had_until_it_is_deleted(store):
    assert store.get("a") is None
    store.put("a", b"one", 1)
    store.put("a", b"two", 1)
    store.put("b", b"", 7)
    assert store.get("a") == (b"two", 1) and store.get("b") == (b"", 7)
    store.delete("a")
    store.delete("a")
    assert store.get("a") is None


def test_an_earlier_owner_writes_no_more(store):
    store.put("a", b"mine", 1)
    store.put("a", b"yours", 2)
    with pytest.raises(SupersededError):
        store.put("a", b"mine again", 1)
    assert store.get("a") == (b"yours", 2)


def test_what_is_old_is_forgotten_unless_it_is_renewed(tmp_path, monkeypatch):
    for store in (MemoryStore(keep_s=100), FolderStore(tmp_path, keep_s=100)):
        now = time.time()
        store.put("a", b"1", 1)
        store.put("b", b"2", 1)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=now: now + 99)
            if isinstance(store, FolderStore):
                os.utime(store._path("b"), (now + 99, now + 99))
            else:
                store.renew("b")
            patch.setattr(time, "time", lambda now=now: now + 101)
            assert store.get("a") is None and store.get("b") is not None
            assert store.sweep() == 1
        assert store.get("a") is None and store.get("b") is not None


def test_renewing_touches_the_file(tmp_path):
    store = FolderStore(tmp_path)
    store.put("a", b"1", 1)
    os.utime(store._path("a"), (1e9, 1e9))
    assert store.get("a") is None
    store.renew("a")
    assert store.get("a") == (b"1", 1)
    store.renew("unknown")


def test_two_processes_share_a_folder_and_its_key(tmp_path):
    FolderStore(tmp_path).put("a", b"data", 3)
    assert FolderStore(tmp_path).get("a") == (b"data", 3)
    assert not list(tmp_path.glob("*.new"))


def test_only_the_owner_can_read(tmp_path):
    store = FolderStore(tmp_path / "kept")
    store.put("a", b"data", 1)
    for path in (tmp_path / "kept", *(tmp_path / "kept").iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert stat.S_IMODE((tmp_path / "kept" / "key").stat().st_mode) == 0o600


def test_a_name_is_not_to_be_seen_and_is_no_path(tmp_path):
    store = FolderStore(tmp_path / "kept")
    store.put("../secret/handle", b"data", 1)
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert len(names) == 2 and not any("handle" in name for name in names)
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


@pytest.mark.parametrize("at", [0, 16, 20, 24, 30, -1])
def test_a_changed_byte_is_found(tmp_path, at):
    store = FolderStore(tmp_path)
    store.put("a", b"some data", 1)
    path = store._path("a")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError):
        store.get("a")


def test_a_file_under_another_name_or_of_another_key_is_refused(tmp_path):
    one, two = FolderStore(tmp_path / "one"), FolderStore(tmp_path / "two")
    one.put("a", b"data", 1)
    one._path("b").write_bytes(one._path("a").read_bytes())
    two._path("a").write_bytes(one._path("a").read_bytes())
    for store, name in ((one, "b"), (two, "a")):
        with pytest.raises(SnapshotError, match="another key"):
            store.get(name)
    one._path("c").write_bytes(b"")
    with pytest.raises(SnapshotError, match="no snapshot"):
        one.get("c")


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SnapshotError, match="can't keep snapshots there"):
        FolderStore(tmp_path / "file")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "key").write_text("short")
    with pytest.raises(SnapshotError, match="not a key"):
        FolderStore(tmp_path / "bad")
