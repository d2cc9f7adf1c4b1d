"""What is said on the wire, without any input or output: messages in, messages out."""

from audiossm.protocol.client import ClientProtocol
from audiossm.protocol.encoding import ENCODINGS, Encoding, decode_samples, encode_samples
from audiossm.protocol.native import VERSION, ServerProtocol, encode

__all__ = [
    "ENCODINGS",
    "VERSION",
    "ClientProtocol",
    "Encoding",
    "ServerProtocol",
    "decode_samples",
    "encode",
    "encode_samples",
]
