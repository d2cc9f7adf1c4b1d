"""RFC 6455, sections 4 to 7, on raw sockets: what a real server says to frames of all kinds."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zlib

import pytest

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from live_service import ROUTES
from raw_socket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawSocket,
    frame,
)
from tiny_model import make_transcriber

NATIVE = "/v1/stream"
START = '{"type":"start","sample_rate":16000}'
CAP = 1_000_000  # bytes of a message


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serve a tiny model in a process of its own; what it logs must be lines of JSON alone."""
    folder = tmp_path_factory.mktemp("server")
    model = make_transcriber()
    config = {"recogniser": to_dict(model.config)}
    save_model(folder / "tiny", "recogniser", "", config, model.network.state_dict())
    command = [sys.executable, "-m", "audiossm_apps.cli", "serve", "--port", "0"]
    command += ["--model", str(folder / "tiny"), "--store", str(folder / "store")]
    command += ["--capacity", "50", "--backend", "torch", "--decoder", "greedy"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert "serving" in line, (folder / "log").read_text()
        yield line.split()[-1]
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()
    for line in (folder / "log").read_text().splitlines():
        json.loads(line)


def open_native(address: str) -> RawSocket:
    """Begin a stream."""
    client = RawSocket(address, NATIVE)
    client.send(frame(TEXT, START))
    began = client.receive()
    assert began is not None and json.loads(began.payload)["type"] == "started"
    return client


def metric(address: str, name: str) -> int:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(rf"^audiossm_{name} (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_a_handshake_is_agreed_to_or_refused_by_http(server):
    cases = {
        101: {},
        426: {"Sec_WebSocket_Version": "8"},
        400: {"Sec_WebSocket_Key": None},
    }
    for status, headers in cases.items():
        with RawSocket(server, NATIVE, **headers) as client:
            assert client.status == status, client.head
    with RawSocket(server, NATIVE, Sec_WebSocket_Version="8") as client:
        assert b"sec-websocket-version: 13" in client.head.lower()
    with RawSocket(server, NATIVE, Sec_WebSocket_Key="c2hvcnQ=") as client:
        assert client.status == 400
    with RawSocket(server, "/nowhere") as client:
        assert client.status in (403, 404)
    # the example of section 1.3
    with RawSocket(server, NATIVE, Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==") as client:
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in client.head


FRAGMENTS = {
    "two": [(TEXT, START[:9], False), (CONTINUATION, START[9:], True)],
    "one byte each": [
        (TEXT, START[0], False),
        *((CONTINUATION, byte, False) for byte in START[1:]),
        (CONTINUATION, b"", True),
    ],
    "empty ones": [(TEXT, "", False), (CONTINUATION, "", False), (CONTINUATION, START, True)],
    "a ping between": [
        (TEXT, START[:5], False),
        (PING, "are you there", True),
        (CONTINUATION, START[5:], True),
    ],
    "a pong between": [
        (TEXT, START[:5], False),
        (PONG, "nobody asked", True),
        (CONTINUATION, START[5:], True),
    ],
}


@pytest.mark.parametrize("parts", FRAGMENTS.values(), ids=FRAGMENTS)
def test_a_message_may_come_in_fragments_with_control_frames_between(server, parts):
    with RawSocket(server, NATIVE) as client:
        client.send(*(frame(opcode, data, fin=fin) for opcode, data, fin in parts))
        found = client.receive()
        if any(opcode == PING for opcode, _, _ in parts):
            assert found == Frame(PONG, b"are you there", True)
            found = client.receive()
        assert found is not None and json.loads(found.payload)["type"] == "started"


def test_bytes_and_frames_may_come_in_any_pieces(server):
    audio = frame(BINARY, bytes(1000), fin=False) + frame(CONTINUATION, bytes(2200))
    data = frame(TEXT, START) + audio + frame(PING, b"x") + frame(TEXT, '{"type":"finish"}')
    for size in (1, 7, len(data)):
        with RawSocket(server, NATIVE) as client:
            for at in range(0, len(data), size):
                client.send(data[at : at + size])
            said = []
            while not said or said[-1].get("type") != "finished":
                found = client.receive()
                assert found is not None
                said.append(json.loads(found.payload) if found.opcode == TEXT else {})
            assert said[-1]["received"] == 1600 and {} in said


@pytest.mark.parametrize("payload", [b"", b"\0", b"\xff\xfe", bytes(range(125))], ids=len)
def test_a_ping_is_answered_with_its_payload(server, payload):
    with open_native(server) as client:
        client.send(frame(PONG, b"unsolicited"), frame(PING, payload), frame(PONG, payload))
        client.send(frame(CLOSE, struct.pack(">H", 1000)))
        code, before = client.ends()
        assert code == 1000
        assert [f for f in before if f.opcode != TEXT] == [Frame(PONG, payload, True)]


LEGAL = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)
ILLEGAL = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


@pytest.mark.parametrize("code", LEGAL)
def test_a_close_frame_is_answered_in_kind(server, code):
    with RawSocket(server, NATIVE) as client:
        client.send(frame(CLOSE, struct.pack(">H", code) + "au revoir, été".encode()))
        assert client.ends() == (code, [])


def test_a_close_frame_may_be_empty_and_nothing_after_it_counts(server):
    with RawSocket(server, NATIVE) as client:
        client.send(frame(CLOSE), frame(TEXT, START), frame(PING, b"late"))
        assert client.ends() in ((1005, []), (1000, []))


@pytest.mark.parametrize("code", ILLEGAL)
def test_a_close_code_that_nobody_may_send_is_a_protocol_error(server, code):
    with RawSocket(server, NATIVE) as client:
        client.send(frame(CLOSE, struct.pack(">H", code)))
        assert client.ends() == (1002, [])


CUT = "é".encode()[:1]
MISUSES = {
    # what is sent, and the close code
    "close with 1 byte": ([frame(CLOSE, b"\x03")], 1002),
    "close with a reason that is no text": ([frame(CLOSE, b"\x03\xe8\xff")], 1007),
    "close too long": ([frame(CLOSE, b"\x03\xe8" + bytes(124))], 1002),
    "ping too long": ([frame(PING, bytes(126))], 1002),
    "pong too long": ([frame(PONG, bytes(126))], 1002),
    "ping in fragments": ([frame(PING, b"x", fin=False)], 1002),
    "close in fragments": ([frame(CLOSE, b"\x03\xe8", fin=False)], 1002),
    "RSV1 without an extension": ([frame(TEXT, START, reserved=4)], 1002),
    "RSV2": ([frame(TEXT, START, reserved=2)], 1002),
    "RSV3": ([frame(TEXT, START, reserved=1)], 1002),
    "all reserved bits on a ping": ([frame(PING, b"", reserved=7)], 1002),
    **{f"opcode {code}": ([frame(code, b"x")], 1002) for code in (3, 4, 5, 6, 7)},
    **{f"opcode {code}": ([frame(code, b"x")], 1002) for code in (11, 12, 13, 14, 15)},
    "not masked": ([frame(TEXT, START, masked=False)], 1002),
    "a ping that isn't masked": ([frame(PING, b"", masked=False)], 1002),
    "continuation of nothing": ([frame(CONTINUATION, START)], 1002),
    "continuation after the end": (
        [frame(TEXT, "{", fin=False), frame(CONTINUATION, "}"), frame(CONTINUATION, "}")],
        (1002, 1008),
    ),
    "text within a message": ([frame(TEXT, "{", fin=False), frame(TEXT, START)], 1002),
    "audio within a message": ([frame(TEXT, "{", fin=False), frame(BINARY, bytes(2))], 1002),
    "invalid UTF-8": ([frame(TEXT, b"\xff\xff")], 1007),
    "UTF-8 longer than needed": ([frame(TEXT, b"\xc0\xaf")], 1007),
    "a surrogate in UTF-8": ([frame(TEXT, b"\xed\xa0\x80")], 1007),
    "beyond Unicode": ([frame(TEXT, b"\xf4\x90\x80\x80")], 1007),
    "UTF-8 cut short": ([frame(TEXT, b'{"a":"' + CUT)], 1007),
    "UTF-8 cut short in fragments": (
        [frame(TEXT, b'{"a":"' + CUT, fin=False), frame(CONTINUATION, b'"}')],
        1007,
    ),
    "invalid UTF-8 and a close in one packet": (
        [frame(TEXT, b"\xff") + frame(CLOSE, b"\x03\xe8")],
        (1007, 1000),
    ),
    "a length over the cap": ([frame(BINARY, b"", length=CAP + 1)], 1009),
    "a length of 2**62": ([frame(BINARY, b"", length=2**62)], 1009),
    "a length with the highest bit": ([frame(BINARY, b"", length=2**64 - 1)], (1002, 1009)),
    "fragments over the cap": (
        [frame(BINARY, bytes(600), fin=False), frame(CONTINUATION, b"", length=CAP - 599)],
        1009,
    ),
}


@pytest.mark.parametrize(("sent", "code"), MISUSES.values(), ids=MISUSES)
def test_what_is_against_the_rules_ends_the_connection_with_its_code(server, sent, code):
    with RawSocket(server, NATIVE) as client:
        client.send(*sent)
        found, before = client.ends()
        assert found in (code if isinstance(code, tuple) else (code,))
        # a stream was never begun: at most an error of the protocol is said
        assert [json.loads(f.payload)["type"] for f in before] in ([], ["error"])


def test_text_in_utf8_may_be_cut_within_a_letter(server):
    wish = '{"type":"resume","handle":"日本é","seq":0}'.encode()
    with RawSocket(server, NATIVE) as client:
        parts = [wish[at : at + 1] for at in range(len(wish))]
        client.send(frame(TEXT, parts[0], fin=False))
        client.send(*(frame(CONTINUATION, part, fin=False) for part in parts[1:]))
        client.send(frame(CONTINUATION, b"", fin=True))
        code, (said,) = client.ends()
        assert code == 1008 and json.loads(said.payload)["code"] == "unknown"


@pytest.mark.parametrize("wide", [2, 8])
def test_a_length_in_more_bytes_than_needed_is_read_or_refused(server, wide):
    """Section 5.2 forbids it to who writes; it does no harm to who reads."""
    with RawSocket(server, NATIVE) as client:
        client.send(frame(TEXT, START, wide=wide))
        found = client.receive()
        assert found is not None and found.opcode in (TEXT, CLOSE)


def test_a_compressed_message_may_not_grow_over_the_cap(server):
    extension = "permessage-deflate; client_no_context_takeover"
    with RawSocket(server, NATIVE, Sec_WebSocket_Extensions=extension) as client:
        assert client.status == 101
        if b"permessage-deflate" not in client.head:
            return  # not agreed to: nothing is ever inflated
        packer = zlib.compressobj(9, zlib.DEFLATED, -12)
        bomb = packer.compress(bytes(50 * CAP)) + packer.flush(zlib.Z_SYNC_FLUSH)
        client.send(frame(BINARY, bomb[:-4], reserved=4))
        assert client.ends()[0] == 1009


@pytest.mark.parametrize("how", ["half a frame", "half closed", "reset"])
def test_who_goes_without_a_word_leaves_nothing_behind(server, how):
    before = metric(server, "connections")
    clients = [open_native(server) for _ in range(3)]
    assert metric(server, "connections") >= before + 3
    for client in clients:
        client.send(frame(BINARY, bytes(3200))[:100])
        if how == "half closed":
            client.socket.shutdown(socket.SHUT_WR)
            assert client.ends()[0] is None
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
    until = time.monotonic() + 60
    while metric(server, "connections") > before:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("route", [NATIVE, "/vosk", "/api/asr-streaming"])
def test_who_never_reads_holds_up_nobody_and_is_not_written_to_without_end(server, route):
    with RawSocket(server, route, receive_buffer=4096) as slow:
        slow.socket.settimeout(0.5)
        message = {
            NATIVE: frame(TEXT, '{"type":"flush"}') * 20,
            "/vosk": frame(BINARY, bytes(320)) * 20,
            "/api/asr-streaming": frame(BINARY, b"\x82\xa4type\xa6Marker\xa2id\x01") * 20,
        }[route]
        slow.send(frame(TEXT, START) if route == NATIVE else b"")
        try:
            for _ in range(10):
                slow.socket.sendall(message)
        except TimeoutError:
            pass  # the server reads no more, as it should
        with open_native(server) as client:  # which waits for 20 s at most
            client.send(frame(BINARY, bytes(6400)), frame(TEXT, '{"type":"finish"}'))
            while json.loads(client.receive().payload)["type"] != "finished":
                pass


@pytest.mark.parametrize("route", ROUTES)
def test_every_dialect_keeps_the_rules(server, route):
    for sent, code in (
        (frame(TEXT, b"\xff"), 1007),
        (frame(3, b""), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(CONTINUATION, b""), 1002),
        (frame(TEXT, "x", masked=False), 1002),
        (frame(TEXT, "{", fin=False) + frame(TEXT, "}"), 1002),
        (frame(BINARY, b"", length=CAP + 1), 1009),
        (frame(CLOSE, b"\x0f\xa0"), 4000),
        (frame(CLOSE, b"\x03"), 1002),
    ):
        with RawSocket(server, route) as client:
            assert client.status == 101
            client.send(frame(PING, b"first"), sent)
            found, before = client.ends()
            assert (route, found) == (route, code)
            if code == 4000:  # who fails the connection needn't answer first
                assert Frame(PONG, b"first", True) in before


def test_after_all_this_nothing_is_left_and_others_are_served(server):
    with open_native(server) as client:
        client.send(frame(BINARY, os.urandom(3200)), frame(TEXT, '{"type":"finish"}'))
        assert any(b'"finished"' in found.payload for found in iter(client.receive, None))
