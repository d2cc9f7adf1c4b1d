"""A websocket client that may break every rule of RFC 6455: frames are bytes that a test writes."""

import base64
import os
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple, Self

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT", "Frame", "RawSocket", "frame"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Frame(NamedTuple):
    """A frame that a server sent."""

    opcode: int
    payload: bytes
    fin: bool


def frame(
    opcode: int,
    payload: bytes | str = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
    wide: int | None = None,
) -> bytes:
    """Write a frame (RFC 6455, section 5.2).

    Args:
        opcode: what it is.
        payload: its bytes.
        fin: whether it is the message's last one.
        reserved: the three bits RSV1 (4) to RSV3 (1).
        masked: as a client's has to be.
        length: what is said of the payload's length, if not the truth.
        wide: bytes of the length's extension, 0, 2 or 8, if not the fewest.
    """
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data) if length is None else length
    if wide is None:
        wide = 0 if size < 126 else 2 if size < 65536 else 8
    head = bytes([fin << 7 | reserved << 4 | opcode])
    head += bytes([masked << 7 | {0: size, 2: 126, 8: 127}[wide]])
    head += {0: b"", 2: struct.pack(">H", size & 0xFFFF), 8: struct.pack(">Q", size)}[wide]
    if not masked:
        return head + data
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(data))


class RawSocket:
    """A connection after its handshake, if the server agreed; ``status`` says so (101).

    Args:
        address: host and port.
        path: of the address.
        headers: more of them, or others; None leaves one out.
        receive_buffer: bytes that the system takes in for somebody who doesn't read.
    """

    def __init__(
        self, address: str, path: str, receive_buffer: int | None = None, **headers: str | None
    ) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._there = b""
        fields: dict[str, str | None] = {
            "Host": address,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
        }
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        request = "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""])
        self.send(request.encode())
        while b"\r\n\r\n" not in self._there and self._more():
            pass
        self.head, _, self._there = self._there.partition(b"\r\n\r\n")
        self.status = int(self.head.split()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *data: bytes) -> None:
        """Send bytes at once; a server that has closed already isn't minded."""
        try:
            self.socket.sendall(b"".join(data))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self) -> Frame | None:
        """Return the next frame; None at the end of the connection."""
        head = self._take(2)
        if head is None:
            return None
        size = head[1] & 0x7F
        if size >= 126:
            more = self._take(2 if size == 126 else 8)
            assert more is not None
            size = int.from_bytes(more, "big")
        payload = self._take(size)
        assert payload is not None and not head[1] & 0x80  # a server masks nothing
        return Frame(head[0] & 0x0F, payload, bool(head[0] & 0x80))

    def frames(self) -> Iterable[Frame]:
        """Yield all frames until the server has closed the connection."""
        while (found := self.receive()) is not None:
            yield found

    def ends(self) -> tuple[int | None, list[Frame]]:
        """Answer a close frame and read to the end; return its code and the frames before it.

        No close frame is None, an empty one is 1005.
        """
        before: list[Frame] = []
        for found in self.frames():
            if found.opcode == CLOSE:
                self.send(frame(CLOSE, found.payload))
                assert self.receive() is None, "something follows a close frame"
                code = int.from_bytes(found.payload[:2], "big") if found.payload else 1005
                found.payload[2:].decode()
                return code, before
            before.append(found)
        return None, before

    def _take(self, size: int) -> bytes | None:
        while len(self._there) < size:
            if not self._more():
                assert not self._there, "the connection ends within a frame"
                return None
        taken, self._there = self._there[:size], self._there[size:]
        return taken

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._there += data
        return bool(data)
