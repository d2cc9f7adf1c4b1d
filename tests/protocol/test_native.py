"""The native protocol: what is legal, what junk gets, and that no loss changes what is read."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.audio.opus import PREROLL_S
from audiossm.errors import ProtocolError
from audiossm.protocol import ClientProtocol, ServerProtocol, encode
from audiossm.protocol import native as n
from audiossm.protocol.encoding import OPUS_PREROLL, OPUS_RATE
from protocol_runs import TOY_HEAD, ToyServer, make_toy_page

many = settings(max_examples=300, deadline=None, derandomize=True)
START = '{"type":"start","version":1}'


def opened() -> ServerProtocol:
    protocol = ServerProtocol()
    protocol.receive(START)
    return protocol


def test_a_conversation():
    protocol = ServerProtocol()
    start = protocol.receive(
        '{"type":"start","version":1,"sample_rate":8000,"encoding":"mulaw",'
        '"hotwords":["Anna",["Karenina",2]],"keep_s":30}'
    )
    assert start == n.Start(
        sample_rate=8000, encoding="mulaw", hotwords=(("Anna", 1.0), ("Karenina", 2.0)), keep_s=30.0
    )
    audio = protocol.receive(b"\xff\x00\x80")
    np.testing.assert_allclose(audio.samples * 32768, [0, -32124, 32124])
    assert protocol.receive('{"type":"flush"}') == n.Flush()
    assert protocol.receive('{"type":"rewind","seconds":2}') == n.Rewind(seconds=2.0)
    assert protocol.receive('{"type":"hotwords","hotwords":[]}') == n.Hotwords(hotwords=())
    assert protocol.receive('{"type":"fork"}') == n.Fork()
    assert protocol.receive('{"type":"finish"}') == n.Finish()
    assert protocol.receive('{"type":"seen","seq":3}') == n.Seen(seq=3)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\0\0", "audio, but the stream is new"),
        ('{"type":"flush"}', "'flush' before 'start' or 'resume'"),
        ('{"type":"start","version":2}', "version 2, but this server speaks 1"),
        ('{"type":"start","encoding":"mp3"}', "encoding 'mp3' is none of s16, f32"),
        ('{"type":"start","sample_rate":7999}', "outside 8000..48000"),
        ('{"type":"start","sample_rate":"16000"}', "'sample_rate' in 'start' can't be '16000'"),
        ('{"type":"start","sample_rate":true}', "can't be 'True'"),
        ('{"type":"start","rate":8000}', "unknown 'rate' in 'start': it has"),
        ('{"type":"start","keep_s":NaN}', "can't be 'nan'"),
        ('{"type":"start","hotwords":[["a"]]}', "a hot word is a phrase or"),
        ('{"type":"resume","seq":1}', "'resume' lacks one of"),
        ('{"type":"start","handle":null}', "unknown 'handle'"),
        ('{"type":"word"}', "type 'word' is none of start"),
        ('{"type":["start"]}', "is none of"),
        ("[]", "not a JSON object"),
        ("start", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON|not a JSON object"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(message, said):
    protocol = ServerProtocol()
    with pytest.raises(ProtocolError, match=said):
        protocol.receive(message)
    assert protocol.receive(START) == n.Start()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (START, "comes first, and once"),
        (b"\0", "1 bytes of audio are not whole samples of 2"),
        ('{"type":"rewind","seconds":-1}', "can't be '-1'"),
        ('{"type":"rewind"}', "lacks"),
        ('{"type":"seen","seq":1.5}', "can't be"),
        ('{"type":"seen","seq":1e400}', "can't be"),
        ('{"type":"hotwords","hotwords":["a",["b",1e400]]}', None),
        ('{"type":"hotwords","hotwords":["a",["b",1' + "0" * 400 + "]]}", "a hot word is"),
    ],
)
def test_what_is_wrong_later_on(message, said):
    protocol = opened()
    if said is None:
        protocol.receive(message)  # whether a weight is one, the model's side decides
        return
    with pytest.raises(ProtocolError, match=said):
        protocol.receive(message)


def test_nothing_follows_the_end():
    protocol = opened()
    protocol.receive('{"type":"finish"}')
    for message in (b"\0\0", '{"type":"finish"}', '{"type":"flush"}'):
        with pytest.raises(ProtocolError):
            protocol.receive(message)


def test_floats_that_are_no_sound_are_refused():
    protocol = ServerProtocol()
    protocol.receive('{"type":"start","encoding":"f32"}')
    for value in (np.nan, np.inf, -1e20):
        with pytest.raises(ProtocolError, match="no number, or beyond"):
            protocol.receive(np.array([0, value], np.float32).tobytes())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
names = st.sampled_from(
    ["version", "sample_rate", "encoding", "hotwords", "keep_s", "seq", "handle", "seconds", "x"]
)
messages = (
    st.binary(max_size=20)
    | st.text(max_size=30)
    | st.builds(
        lambda kind, fields: json.dumps({"type": kind} | fields),
        st.sampled_from([*n.REQUESTS, "word", ""]),
        st.dictionaries(names, values, max_size=3),
    )
)


@many
@given(st.lists(messages, max_size=12), st.booleans())
def test_any_messages_are_legal_or_a_protocol_error(junk, begun):
    protocol = opened() if begun else ServerProtocol()
    for message in junk:
        before = protocol.state
        try:
            request = protocol.receive(message)
        except ProtocolError as exc:
            assert protocol.state == before and str(exc) and len(str(exc)) < 500
        else:
            assert isinstance(request, n.Request)


@many
@given(messages)
def test_any_reply_is_read_or_a_protocol_error(junk):
    client = ClientProtocol(n.Start())
    try:
        client.receive(junk)
    except ProtocolError:
        pass


def test_replies_are_read_as_they_were_written():
    word = n.Word(seq=3, word="river", start_s=0.5, end_s=1.0, confidence=0.875)
    assert encode(word) == (
        '{"type":"word","seq":3,"word":"river","start_s":0.5,"end_s":1.0,"confidence":0.875}'
    )
    assert n.decode_reply(encode(word)) == word
    newer = encode(word)[:-1] + ',"speaker":1}'
    assert n.decode_reply(newer) == word


actions = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(1, 400)),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("keep"), st.none()),
        st.tuples(st.just("lose"), st.integers(0, 30)),  # messages on the way back are lost, too
        st.tuples(st.just("forget"), st.none()),
        st.tuples(st.just("talk"), st.integers(1, 6)),
    ),
    max_size=40,
)


@many
@given(actions, st.booleans(), st.booleans())
def test_whatever_is_lost_the_client_reads_the_same_events(plan, within, opus):
    """Connections and servers are lost at any moment, with anything on the way."""
    rng = np.random.default_rng(0)
    server, client = ToyServer(keeps_within=within), ClientProtocol(n.Start())
    if opus:  # long pages, as what lies before is longer, too
        client = ClientProtocol(n.Start(encoding="opus", sample_rate=48000), TOY_HEAD)
        server.credit = 10_000
    there: list[str | bytes] = []
    back: list[str] = []
    read: list[n.Reply] = []
    sent: list[float] = []
    controls: list[int] = []

    def connect() -> None:
        there.clear()
        back.clear()
        server.connect()
        client.connected()

    def talk(turns: int) -> None:
        for _ in range(turns):
            there.extend(client.outgoing())
            if there:
                back.extend(server.receive(there.pop(0)))
            if back:
                message = back.pop(0)
                failure = json.loads(message)["type"] == "error"
                read.extend(r for r in client.receive(message) if isinstance(r, n.EVENTS))
                if failure:
                    connect()

    connect()
    for what, number in [*plan, ("finish", None), ("talk", 10_000)]:
        if what == "audio":
            samples = rng.integers(-1000, 1000, number * (5 if opus else 1)) / 32768
            if opus:
                client.send_page(make_toy_page(len(sent), samples), len(samples))
            else:
                client.send_audio(samples)
            sent += samples.tolist()
        elif what == "flush":
            client.flush()
            controls.append(len(sent))
        elif what == "finish":
            client.finish()
        elif what == "keep":
            back += server.keep()
        elif what == "forget" and not client.durable and not client.durable_controls:
            server.kept.clear()
            server.handle = None
            connect()
        elif what == "lose":
            talk(number)
            connect()
        elif what == "talk":
            talk(number)
    straight = ToyServer(credit=10**9)
    straight.receive(START)
    expected, at = [], 0
    for stop in [*controls, len(sent)]:
        data = (np.array(sent[at:stop]) * 32768).round().astype("<i2").tobytes()
        straight.receive(data)
        at = stop
        straight.receive('{"type":"flush"}') if len(expected) < len(controls) else None
        expected.append(stop)
    straight.receive('{"type":"finish"}')
    assert client.finished
    assert read == straight.events
    assert [event.seq for event in read] == list(range(1, len(read) + 1))


def test_a_client_keeps_no_more_than_what_a_server_may_lose():
    server, client = ToyServer(credit=10**6), ClientProtocol(n.Start())
    client.connected()
    for _ in range(50):
        client.send_audio(np.zeros(1000))
        for message in client.outgoing():
            for reply in server.receive(message) + server.keep():
                client.receive(reply)
        assert client.kept_bytes <= 2000
    assert client.durable == 50_000 and client.waiting == 0


def test_audio_waits_for_credit():
    server, client = ToyServer(credit=350), ClientProtocol(n.Start())
    client.connected()
    client.send_audio(np.zeros(1000))
    (start,) = client.outgoing()
    client.receive(server.receive(start)[0])
    (audio,) = client.outgoing()
    assert len(audio) == 700 and client.outgoing() == [] and client.waiting == 650


def test_of_opus_a_client_keeps_what_a_decoder_needs_to_begin():
    client = ClientProtocol(n.Start(encoding="opus", sample_rate=48000), TOY_HEAD)
    server = ToyServer(credit=10**6)
    client.connected()
    for number in range(20):
        client.send_page(make_toy_page(number * 1000, np.zeros(1000)), 1000)
        for message in client.outgoing():
            for reply in server.receive(message) + server.keep():
                client.receive(reply)
    assert client.durable == 20_000
    assert client.kept_bytes == 4 * 4008  # 3840 samples
    server.connect()
    client.connected()
    client.receive(server.receive(client.outgoing()[0])[0])
    head, *pages = client.outgoing()
    assert head == TOY_HEAD and [int.from_bytes(p[:8], "little") for p in pages] == [
        *range(16_000, 20_000, 1000)
    ]
    assert OPUS_PREROLL == PREROLL_S * OPUS_RATE


def test_a_stream_takes_what_its_encoding_is():
    with pytest.raises(ProtocolError, match="Opus has a head"):
        ClientProtocol(n.Start(encoding="opus", sample_rate=48000))
    with pytest.raises(ProtocolError, match="Opus has a head"):
        ClientProtocol(n.Start(), TOY_HEAD)
    with pytest.raises(ProtocolError, match="takes no pages"):
        ClientProtocol(n.Start()).send_page(b"", 0)
    opus = n.Start(encoding="opus", sample_rate=48000)
    for send in (ClientProtocol.send_bytes, ClientProtocol.send_audio):
        with pytest.raises(ProtocolError, match="it takes pages"):
            send(ClientProtocol(opus, TOY_HEAD), b"")
    with pytest.raises(ProtocolError, match="another encoding"):
        ClientProtocol.of_fork(opus, n.Forked(seq=0, handle="h", received=0, controls=0))


def test_a_stream_that_was_given_up_elsewhere_is_told_as_lost():
    server, client = ToyServer(), ClientProtocol(n.Start())
    client.connected()
    client.receive(server.receive(client.outgoing()[0])[0])
    client.send_audio(np.zeros(100))
    for message in client.outgoing():
        for reply in server.receive(message) + server.keep():
            client.receive(reply)
    server.kept.clear()
    server.connect()
    client.connected()
    (reply,) = client.receive(server.receive(client.outgoing()[0])[0])
    assert reply.code == "unknown"


def test_after_the_end_nothing_may_be_sent():
    client = ClientProtocol(n.Start())
    client.finish()
    for call in (client.flush, client.finish, client.fork, lambda: client.send_audio(np.zeros(1))):
        with pytest.raises(ProtocolError, match="finished"):
            call()
