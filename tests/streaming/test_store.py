"""Kept snapshots: whole or not at all, signed, owned by one, forgotten in time."""

import os
import stat
import threading
import time

import pytest

from audiossm.errors import SnapshotError
from audiossm.streaming.redis_store import RedisStore
from audiossm.streaming.store import (
    FolderStore,
    MemoryStore,
    StoreLostError,
    SupersededError,
    next_epoch,
    open_store,
)
from redis_server import run_redis, why_no_redis

needs_redis = pytest.mark.skipif(bool(why_no_redis()), reason=why_no_redis())


@pytest.fixture(scope="module")
def shared_redis():
    with run_redis() as (address, _):
        yield address


@pytest.fixture
def redis_address(shared_redis):
    import redis

    redis.Redis.from_url(shared_redis).flushall()
    return shared_redis


@pytest.fixture(params=["memory", "folder", pytest.param("redis", marks=needs_redis)])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return open_store(tmp_path / "kept")
    return open_store(request.getfixturevalue("redis_address"))


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


def test_of_two_owners_in_one_moment_only_one_writes_on(store):
    store.put("a", b"first", 7)
    epochs = [next_epoch(7), next_epoch(7)]
    assert epochs[0] != epochs[1] and min(epochs) > 7 and max(epochs) < next_epoch(max(epochs))
    lost = []

    def write(epoch: int) -> None:
        for _ in range(50):
            try:
                store.put("a", str(epoch).encode(), epoch)
            except SupersededError:
                lost.append(epoch)

    threads = [threading.Thread(target=write, args=[epoch]) for epoch in epochs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("a") == (str(max(epochs)).encode(), max(epochs))
    assert set(lost) <= {min(epochs)}


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


def test_a_key_of_ones_own_signs(tmp_path):
    FolderStore(tmp_path, key=bytes(32)).put("a", b"data", 1)
    assert FolderStore(tmp_path, key=bytes(32)).get("a") == (b"data", 1)
    assert FolderStore(tmp_path, key=b"x" * 32).get("a") is None  # not even its name is known
    with pytest.raises(SnapshotError, match="not a key of 32 bytes"):
        FolderStore(tmp_path, key=b"short")


@needs_redis
def test_redis_forgets_by_itself_unless_it_is_renewed(redis_address):
    store = RedisStore(redis_address, keep_s=0.3)
    store.put("a", b"data", 1)
    RedisStore(redis_address, keep_s=100).put("b", b"data", 1)
    for name in ("a", "b"):
        assert store.get(name) == (b"data", 1)
    store.renew("b")
    RedisStore(redis_address, keep_s=100).renew("b")
    until = time.monotonic() + 20
    while store.get("a") is not None:
        assert time.monotonic() < until
    assert store.get("b") is not None and store.sweep() == 0
    store.renew("unknown")
    assert store.get("unknown") is None


@needs_redis
def test_two_servers_share_a_redis_and_its_key_and_no_handle_is_to_be_seen(redis_address):
    import redis

    RedisStore(redis_address).put("the handle", b"data", 3)
    assert RedisStore(redis_address).get("the handle") == (b"data", 3)
    assert RedisStore(redis_address, key=bytes(32)).get("the handle") is None
    names = redis.Redis.from_url(redis_address).keys("*")
    assert len(names) == 2 and not any(b"handle" in name for name in names)


@needs_redis
def test_what_is_damaged_or_moved_in_redis_is_refused(redis_address):
    import redis

    client, store = redis.Redis.from_url(redis_address), RedisStore(redis_address)
    store.put("a", b"some data", 1)
    content = client.hget(store._name("a"), "content")
    client.hset(store._name("b"), "content", content)
    with pytest.raises(SnapshotError, match="another key"):
        store.get("b")
    for spoilt in (content[:-1], content[:30] + b"!" + content[31:], b""):
        client.hset(store._name("a"), "content", spoilt)
        with pytest.raises(SnapshotError):
            store.get("a")
    client.set("audiossm:key", b"short")
    with pytest.raises(SnapshotError, match="not a key"):
        RedisStore(redis_address)


@needs_redis
def test_a_redis_that_goes_away_is_a_store_that_is_lost_for_now():
    with run_redis() as (address, process):
        store = RedisStore(address)
        store.put("a", b"data", 1)
        process.kill()
        process.wait()
        for act in (
            lambda: store.put("a", b"more", 1),
            lambda: store.get("a"),
            lambda: store.renew("a"),
        ):
            with pytest.raises(StoreLostError, match="127.0.0.1"):
                act()
        store.delete("a")
        with pytest.raises(SnapshotError, match="can't keep snapshots there") as caught:
            RedisStore(address.replace("//", "//somebody:secret@"))
        assert "secret" not in str(caught.value)


@needs_redis
@pytest.mark.parametrize("address", ["redis://127.0.0.1:x", "ftp://127.0.0.1", "redis://[::1"])
def test_an_address_that_is_none_is_said(address):
    with pytest.raises(SnapshotError, match="can't keep snapshots there"):
        open_store(address)
