"""The live service as its clients meet it: words, losses, refusals, limits, its end."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from audiossm.errors import ConfigError, ServiceError
from audiossm.protocol import native as n
from audiossm.streaming import Endpoint, FolderStore, MemoryStore, Word
from audiossm.streaming.store import StoreLostError
from audiossm_apps.client import AsyncStream, SyncStream, connect, stream_address
from audiossm_apps.live.gate import Caps, Gate, read_keys
from live_service import ROUTES, live, run_live
from tiny_model import make_transcriber, read_speech

SPEECH = read_speech()[:48000]
Told = tuple[str, float]


def alone(samples: np.ndarray, rate: int = 16000, flushes: tuple[int, ...] = ()) -> list[Told]:
    session, events, at = make_transcriber().session(rate), [], 0
    for flush in flushes:
        events += session.push(samples[at:flush]) + session.flush()
        at = flush
    events += session.push(samples[at:]) + session.finish()
    return [(e.word, round(e.start_s, 4)) for e in events if isinstance(e, Word)]


async def read(stream: AsyncStream) -> list[Told]:
    return [(r.word, r.start_s) async for r in stream if isinstance(r, n.Word)]


async def send(stream: AsyncStream, samples: np.ndarray, size: int = 1600) -> None:
    for at in range(0, len(samples), size):
        await stream.send(samples[at : at + size])


async def hear(socket: ClientConnection) -> list[dict[str, object]]:
    """What a server says until it closes."""
    said = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            said.append(json.loads(await socket.recv()))
    return said


def get(address: str, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


@pytest.mark.parametrize("encoding", ["f32", "s16", "mulaw", "alaw"])
def test_the_words_are_those_of_the_same_samples(encoding):
    async def test(service, address):
        async with connect(address, sample_rate=8000, encoding=encoding) as stream:
            await send(stream, SPEECH)
            await stream.finish()
            found = await read(stream)
        from audiossm.protocol import decode_samples, encode_samples

        heard = decode_samples(encode_samples(SPEECH, encoding), encoding)
        assert found == alone(heard, 8000) != []
        await asyncio.sleep(0.1)
        assert not service.engine.slots  # its end arrived: it is forgotten

    run_live(test)


def test_clients_at_once_read_their_own_words():
    async def talk(address, samples, flush):
        async with connect(address, encoding="f32") as stream:
            await send(stream, samples[:flush], 777)
            await stream.flush()
            await send(stream, samples[flush:], 3000)
            await stream.finish()
            assert await read(stream) == alone(samples, 16000, (flush,)) != []

    async def test(service, address):
        signals = [SPEECH, SPEECH[::-1].copy(), -SPEECH, SPEECH[5000:]] * 2
        await asyncio.gather(
            *(talk(address, signal, 9000 + 501 * i) for i, signal in enumerate(signals))
        )

    run_live(test)


def test_cut_connections_cost_nothing():
    async def test(service, address):
        async with connect(address, encoding="f32", max_waiting_s=0.2) as stream:
            sending = asyncio.create_task(send(stream, SPEECH, 800))
            for _ in range(4):
                await asyncio.sleep(0.1)
                await stream.drop()
            await sending
            await stream.flush()
            await stream.drop()
            await stream.finish()
            assert await read(stream) == alone(SPEECH, flushes=(48000,))
            assert stream.reconnects >= 2

    run_live(test)


def test_another_server_goes_on_after_a_graceful_end(tmp_path):
    async def main():
        async with live(FolderStore(tmp_path)) as (first, address):
            stream = connect(address, encoding="f32")
            async with stream:
                await send(stream, SPEECH[:20000])
                await stream.ready()
                await first.drain()
                assert first.engine.meters.snapshots
                async with live(FolderStore(tmp_path)) as (second, other):
                    stream.address = stream_address(other)  # as a proxy would
                    await send(stream, SPEECH[20000:])
                    await stream.finish()
                    assert await read(stream) == alone(SPEECH)
                    assert second.engine.meters.resumed == 1

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_store_that_does_not_answer_for_a_moment_costs_no_stream():
    class Lost(MemoryStore):
        times = 2

        def get(self, name: str) -> tuple[bytes, int] | None:
            if self.times:
                self.times -= 1
                raise StoreLostError("nobody answers there")
            return super().get(name)

    async def main():
        store = Lost()
        async with live(store) as (first, address), live(store) as (second, other):
            async with connect(address, encoding="f32") as stream:
                await send(stream, SPEECH[:20000])
                await stream.ready()
                await first.drain()
                stream.address = stream_address(other)
                await send(stream, SPEECH[20000:])
                await stream.finish()
                assert await read(stream) == alone(SPEECH)
            assert store.times == 0 and second.engine.meters.resumed == 1

    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_a_server_says_when_it_goes():
    async def test(service, address):
        async with open_socket(f"ws://{address}/v1/stream") as socket:
            await socket.send('{"type":"start"}')
            handle = json.loads(await socket.recv())["handle"]
            await socket.send(bytes(3200))
            while service.engine.progress(handle).received < 1600:
                await asyncio.sleep(0.01)
            await service.drain()
            said = await hear(socket)
            acks = [message for message in said if message["type"] == "ack"]
            assert acks[-1]["durable"] == 1600
            assert said[-1]["code"] == "going" and said[-1]["retry_s"] > 0
            assert socket.close_code == 1012

    run_live(test)


def test_partials_grow_and_acks_tell_how_far_it_is():
    async def test(service, address):
        async with connect(address, encoding="f32") as stream:
            await send(stream, SPEECH)
            await stream.finish()
            replies = [reply async for reply in stream]
        assert isinstance(replies[0], n.Started) and isinstance(replies[-1], n.Finished)
        assert any(isinstance(reply, n.Partial) and reply.text for reply in replies)
        acks = [reply for reply in replies if isinstance(reply, n.Ack)]
        assert acks[-1].received == 48000
        assert 16000 <= max(ack.durable for ack in acks)
        assert all(a.durable <= b.durable for a, b in zip(acks, acks[1:], strict=False))

    run_live(test, snapshot_s=0.5)


def test_the_state_is_told_and_does_not_grow():
    async def test(service, address):
        async with connect(address, encoding="f32") as stream:
            await send(stream, SPEECH)
            await stream.flush()
            await stream.ready()
            size = service.engine.progress(stream.protocol.handle).state_bytes
            await stream.drop()
            await stream.finish()
            replies = [reply async for reply in stream]
        (started,) = [reply for reply in replies if isinstance(reply, n.Started)]
        (resumed,) = [reply for reply in replies if isinstance(reply, n.Resumed)]
        assert started.state_bytes > 10_000 and size >= started.state_bytes
        # what is new are events that weren't seen
        assert abs(resumed.state_bytes - started.state_bytes) < 10_000

    run_live(test)


def test_endpoints_are_told_over_the_wire():
    session = make_transcriber().session()
    events = session.push(SPEECH) + session.flush() + session.finish()
    expected = [(e.rule, e.time_s, e.start_s, e.end_s) for e in events if isinstance(e, Endpoint)]

    async def test(_, address):
        async with connect(address, encoding="f32") as stream:
            await send(stream, SPEECH)
            await stream.flush()
            await stream.finish()
            replies = [reply async for reply in stream]
        ends = [reply for reply in replies if isinstance(reply, n.Endpoint)]
        found = [(e.rule, e.time_s, e.start_s, e.end_s) for e in ends]
        assert found == [
            (rule, *(None if time is None else round(time, 4) for time in times))
            for rule, *times in expected
        ]
        assert [rule for rule, *_ in found] == ["end"]

    run_live(test)


def test_a_rewind_on_another_server_is_the_same(tmp_path):
    async def talk(address, store, second=None):
        async with connect(address, encoding="f32", keep_s=10) as stream:
            await send(stream, SPEECH[:24000])
            await stream.flush()
            if second is not None:
                await stream.ready()
                await store.drain()
                stream.address = stream_address(second)
            await stream.rewind(1.2)
            await send(stream, SPEECH[4800:])
            await stream.finish()
            return [
                (r.seq, r.type, getattr(r, "word", None))
                async for r in stream
                if isinstance(r, n.EVENTS)
            ]

    async def main():
        async with live() as (service, address):
            straight = await talk(address, service)
        async with live(FolderStore(tmp_path)) as (first, address):
            async with live(FolderStore(tmp_path)) as (second, other):
                assert await talk(address, first, other) == straight
                assert second.engine.meters.resumed == 1
        assert any(kind == "rewound" for _, kind, _ in straight)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_hot_words_rewind_and_fork_over_the_wire():
    async def test(service, address):
        async with connect(address, encoding="f32", keep_s=10, partials=False) as stream:
            await send(stream, SPEECH[:24000])
            fork = await stream.fork()
            assert fork.received == 24000
            await stream.set_hotwords(["Anna"])  # a decoder that can't weigh any refuses
            await stream.rewind(1.0)
            await send(stream, SPEECH[8000:])
            await stream.finish()
            words, refused, early = [], [], []
            async for reply in stream:
                match reply:
                    case n.Word():
                        words.append((reply.seq, (reply.word, reply.start_s)))
                    case n.Rewound():
                        early = [word for seq, word in words if seq <= fork.seq]
                        assert reply.position == 8000
                        words = [word for word in words if word[0] <= reply.keep]
                    case n.Refused():
                        refused.append(reply.what)
            assert [word for _, word in words] == alone(SPEECH) and refused == ["hotwords"]
        async with connect(address, encoding="f32", fork=fork) as copy:
            await send(copy, SPEECH[24000:])
            await copy.finish()
            assert early + await read(copy) == alone(SPEECH)

    run_live(test)


def test_one_stream_too_many_is_told_to_come_again():
    async def test(service, address):
        async with connect(address) as stream:
            await stream.ready()
            with pytest.raises(InvalidStatus) as caught:
                await open_socket(f"ws://{address}/v1/stream")
            assert caught.value.response.status_code == 503
            assert caught.value.response.headers["Retry-After"] == "1"
            # who comes to resume may come in, and is refused by word if there is no room
            async with open_socket(f"ws://{address}/v1/stream?resume") as socket:
                await socket.send('{"type":"start"}')
                said = json.loads(await socket.recv())
                assert (said["code"], said["retry_s"]) == ("full", 1.0)
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == 1013 and "retry" in socket.close_reason
            patient = connect(address, encoding="f32")
            async with patient:
                await send(stream, SPEECH)
                await stream.finish()
                assert await read(stream)
                await send(patient, SPEECH)
                await patient.finish()
                assert await read(patient) == alone(SPEECH)

    run_live(test, capacity=1, retry_s=1.0)


@pytest.mark.parametrize(
    ("messages", "code", "closes"),
    [
        (["junk"], "bad-message", 1008),
        ([b"\0\0"], "bad-message", 1008),
        (['{"type":"start"}', b"\0"], "bad-audio", 1007),
        (['{"type":"start","hotwords":["42"]}'], "bad-message", 1008),
        (['{"type":"start","lookahead_ms":7}'], "bad-message", 1008),
        (['{"type":"resume","handle":"x","seq":0}'], "unknown", 1008),
        (['{"type":"start"}', *[bytes(200)] * 100], "limit", 1008),
        (['{"type":"start"}', bytes(30000), bytes(30000)], "limit", 1008),
    ],
)
def test_what_a_client_may_not_do_is_said_before_the_end(messages, code, closes):
    async def test(service, address):
        async with open_socket(f"ws://{address}/v1/stream") as socket:
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    await socket.send(message)
            said = await hear(socket)
            assert said[-1]["code"] == code and socket.close_code == closes
        async with connect(address, encoding="f32") as stream:  # others are served as ever
            await send(stream, SPEECH[:9000], 900)
            await stream.finish()
            assert await read(stream) == alone(SPEECH[:9000])

    run_live(test, retry_s=0.2, gate=Gate(caps=Caps(max_audio_s=0.6, max_messages_s=20)))


def test_a_message_too_large_ends_the_connection():
    async def test(service, address):
        async with open_socket(f"ws://{address}/v1/stream") as socket:
            await socket.send('{"type":"start"}')
            await socket.recv()
            with pytest.raises(ConnectionClosed):
                await socket.send(bytes(5000))
                while True:
                    await socket.recv()
            assert socket.close_code == 1009

    run_live(test, gate=Gate(caps=Caps(max_message=4096)))


def test_who_says_nothing_is_let_go():
    async def test(service, address):
        async with open_socket(f"ws://{address}/v1/stream") as socket:
            await socket.send('{"type":"start"}')
            said = await hear(socket)
            assert said[-1]["code"] == "idle" and socket.close_code == 1001

    run_live(test, gate=Gate(caps=Caps(idle_s=0.2)))


def test_somebody_else_who_resumes_takes_the_stream():
    async def test(service, address):
        first = await open_socket(f"ws://{address}/v1/stream")
        await first.send('{"type":"start"}')
        handle = json.loads(await first.recv())["handle"]
        async with open_socket(f"ws://{address}/v1/stream") as second:
            await second.send(json.dumps({"type": "resume", "handle": handle, "seq": 0}))
            assert json.loads(await second.recv())["type"] == "resumed"
            said = await hear(first)
            assert said[-1]["code"] == "taken"

    run_live(test)


def test_keys_origins_and_their_limits():
    async def test(service, address):
        url = f"ws://{address}/v1/stream"

        async def status(**headers: str) -> int:
            try:
                async with open_socket(url, additional_headers=headers) as socket:
                    await socket.send("x")
                    return 101
            except InvalidStatus as exc:
                return exc.response.status_code

        assert await status() == 401
        assert await status(Authorization="Bearer wrong") == 401
        assert await status(Authorization="Bearer good") == 101
        assert await status(Authorization="Token good", Origin="https://evil.example") == 403
        assert await status(Authorization="Token good", Origin="https://good.example") == 101
        assert await status(Authorization="Token good", Origin=f"http://{address}") == 101
        async with connect(address, key="good", encoding="f32") as stream:
            await send(stream, SPEECH)
            await stream.ready()
            assert await status(Authorization="Bearer good") == 429
            await stream.finish()
            assert await read(stream) == alone(SPEECH)
        with pytest.raises(ServiceError, match="HTTP 401"):
            async with connect(address, key="bad") as stream:
                await read(stream)

    gate = Gate({"good": 1}, ("https://good.example",))
    run_live(test, gate=gate)


def test_health_readiness_and_metrics():
    async def test(service, address):
        async with connect(address, encoding="f32") as stream:
            await send(stream, SPEECH)
            await stream.finish()
            await read(stream)
        assert await asyncio.to_thread(get, address, "/healthz") == (200, '{"status":"ok"}')
        status, text = await asyncio.to_thread(get, address, "/readyz")
        assert status == 200 and json.loads(text)["capacity"] == 8
        status, text = await asyncio.to_thread(get, address, "/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        assert values["audiossm_opened_total"] == "1"
        assert values["audiossm_audio_seconds_total"] == "3.0"
        assert (
            values["audiossm_turn_seconds_count"]
            == (values['audiossm_turn_seconds_bucket{le="+Inf"}'])
        )
        service.leaving.set()
        service.drained.set()
        assert (await asyncio.to_thread(get, address, "/readyz"))[0] == 503

    run_live(test)


def test_logs_have_no_text_and_no_handle(caplog):
    async def test(service, address):
        async with connect(address, encoding="f32") as stream:
            await send(stream, SPEECH)
            await stream.finish()
            words = await read(stream)
            handle = stream.protocol.handle
        await asyncio.sleep(0.1)
        lines = [record.getMessage() for record in caplog.records]
        assert any("native_end" in line for line in lines)
        for secret in [handle, *(word for word, _ in words if len(word) > 4)]:
            assert not any(secret in line for line in lines)

    with caplog.at_level("INFO"):
        run_live(test)


def test_a_client_without_asyncio():
    async def test(service, address):
        def talk() -> list[Told]:
            with SyncStream(address, encoding="f32") as stream:
                stream.send(SPEECH[:30000])
                stream.flush()
                stream.send(SPEECH[30000:])
                stream.finish()
                return [(r.word, r.start_s) for r in stream.replies() if isinstance(r, n.Word)]

        assert await asyncio.to_thread(talk) == alone(SPEECH, flushes=(30000,))

    run_live(test)


def test_nobody_there_is_said():
    async def main():
        async with connect("127.0.0.1:9", give_up_s=0.3) as stream:
            await stream.finish()
            await read(stream)

    with pytest.raises(ServiceError, match="127.0.0.1:9"):
        asyncio.run(main())


junk = st.lists(
    st.binary(max_size=40)
    | st.text(max_size=40)
    | st.sampled_from(['{"type":"start"}', '{"type":"flush"}', '{"type":"finish"}', bytes(640)])
    | st.sampled_from(
        ['{"type":"rewind","seconds":1}', '{"type":"fork"}', '{"type":"seen","seq":9}']
    )
    | st.sampled_from(
        [
            *('{"config":{"sample_rate":8000}}', '{"reset":1}', '{"eof":1}', "Done"),
            *('{"type":"Finalize"}', '{"type":"CloseStream"}'),
            *('{"type":"session.update","session":{}}', '{"type":"input_audio_buffer.clear"}'),
            b"\x81\xa4type\xa4Init",
            b"\x82\xa4type\xa6Marker\xa2id\x01",
            b"\x82\xa4type\xa5Audio\xa3pcm\x92\x00\x00",
        ]
    ),
    max_size=8,
)


@pytest.mark.parametrize("route", ROUTES)
def test_any_messages_get_a_legal_answer_or_a_protocol_error(route, caplog):
    async def test(service, address):
        async def say(messages: list[str | bytes]) -> None:
            async with open_socket(f"ws://{address}{route}") as socket:
                try:
                    for message in messages:
                        await socket.send(message)
                    await socket.send("the end")
                    if route == "/v1/realtime":  # its mistakes leave the connection open
                        while json.loads(await socket.recv())["type"] != "error":
                            pass
                        await socket.close()
                    async with asyncio.timeout(10):
                        while True:
                            answer = await socket.recv()
                            if route == "/v1/stream":
                                n.decode_reply(answer)
                except ConnectionClosed:
                    pass
            assert socket.close_code in (1000, 1007, 1008)

        loop = asyncio.get_running_loop()

        @settings(max_examples=40 if route == "/v1/stream" else 15, deadline=None, derandomize=True)
        @given(junk)
        def fuzz(messages):
            asyncio.run_coroutine_threadsafe(say(messages), loop).result(20)

        await asyncio.to_thread(fuzz)
        assert service.engine.meters.failed == 0

    run_live(test, capacity=100, idle_s=0.5)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("localhost:8765", "ws://localhost:8765/v1/stream"),
        ("https://talk.example/", "wss://talk.example/v1/stream"),
        ("ws://a:1/b/v1/stream", "ws://a:1/b/v1/stream"),
    ],
)
def test_addresses(server, address):
    assert stream_address(server) == address


def test_a_file_of_keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\nalpha\nbeta\t2\n\n")
    assert read_keys(path) == {"alpha": 1_000_000, "beta": 2}
    for text, said in (("beta\tx", "keys:1: 'x' is no number"), ("#", "no keys in it")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_keys(path)
    with pytest.raises(ConfigError, match="can't read"):
        read_keys(tmp_path / "gone")
