"""Pings of the server: who sends is alive, and who is silent isn't waited for."""

import asyncio
import time

from live_service import run_live
from raw_socket import CLOSE, PING, TEXT, RawSocket, frame

START = '{"type":"start","sample_rate":16000}'
EAGER = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.2}


def talk_without_pongs(address: str) -> tuple[list[int], int, float]:
    """Send for 1 s and be silent; return what came meanwhile, the close code and the silence."""
    with RawSocket(address, "/v1/stream") as client:
        client.send(frame(TEXT, START))
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            client.send(frame(PING, b"here"))
            time.sleep(0.02)
        silent = time.monotonic()
        got = [(found.opcode, found.payload) for found in client.frames()]
    code = next(int.from_bytes(data[:2], "big") for opcode, data in got if opcode == CLOSE)
    return [opcode for opcode, _ in got], code, time.monotonic() - silent


def test_who_sends_is_not_given_up_for_a_pong_that_is_late():
    async def test(service, address):
        opcodes, code, silence_s = await asyncio.to_thread(talk_without_pongs, address)
        assert PING in opcodes
        assert code == 1011
        assert 0.1 < silence_s < 10

    run_live(test, wire=EAGER)
