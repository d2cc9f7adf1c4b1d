"""Websockets on the wire: uvicorn's protocol, two corners of RFC 6455, and its patience."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["Wire"]

VERSION = "13"


class Wire(WebSocketsSansIOProtocol):
    """The server's end of a connection, from its handshake to its last byte."""

    heard = False  # since the last ping, or since it was waited for once more

    def handle_connect(self, event: Any) -> None:
        """Refuse other versions as section 4.4 says: with the one that is spoken here."""
        if event.headers.get_all("Sec-WebSocket-Version") in ([], [VERSION]):
            super().handle_connect(event)
            return
        response = self.conn.reject(426, f"this server speaks version {VERSION}\n")
        response.headers["Sec-WebSocket-Version"] = VERSION
        self.handshake_complete = self.close_sent = True
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Note that the client lives, and read."""
        self.heard = True
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        """End a connection from which neither a pong nor anything else came since the ping.

        A client that sends a recording faster than it can be transcribed has its pong behind all
        that, where it isn't read for as long as the work takes.
        """
        if not (self.heard or self.read_paused):
            super().keepalive_timeout()
            return
        self.heard = False
        assert self.ping_timeout is not None
        self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)

    def send_keepalive_ping(self) -> None:
        """Send a ping; what came before it doesn't count."""
        self.heard = False
        super().send_keepalive_ping()

    def send_receive_event_to_app(self) -> None:
        """Hand a message on; text that is no UTF-8 ends the connection, without a line in the log.

        Above, it is an exception where the client's close came in the same packet.
        """
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                if self.conn.close_sent is None:
                    self.conn.fail(1007, "text that is no UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()
