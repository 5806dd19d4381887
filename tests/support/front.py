"""HTTP/2 before a server of HTTP/1.1, so that what was written for the one is a test of the other too (`pytest --http2`).

    serve(sock, handle)

looks at what a client that connected says first. To HTTP/2's preface (over TLS: to what ALPN chose) it answers by HTTP/2 itself, and asks
`handle(end)` for each *lane*: a socket that speaks HTTP/1.1, by which one request after another goes, as on a connection. A stream takes a lane that
is free, else there is a new one: a script that counts its connections counts as many as HTTP/1.1's pool would open. What a lane says is read by h11,
what the client says by h2, both strictly. A lane that ends while it is the only one ends the connection, as a server's death would.
"""
from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from select import POLLIN, POLLOUT, poll

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

Handle = Callable[[socket.socket], None]
Field = tuple[bytes, bytes]
HELD = 65536             # bytes of an answer that may wait for the client's window before the lane is read again
HEAD = 4 << 20           # bytes of the largest head that a script may send
ON = False               # in a run over HTTP/2


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


class Lane:
    """One connection of HTTP/1.1 to the script, and the stream whose turn it is."""

    def __init__(self, handle: Handle) -> None:
        self.sock, theirs = tcp_pair()         # with TCP's options and resets
        self.sock.setblocking(False)
        self.h1 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
        self.stream = 0                       # 0: free
        self.up = bytearray()                 # to the script
        self.owed = 0                         # of them, what counts for the client's window
        self.down = bytearray()               # of the answer's body, to the client
        self.begun = self.ended = self.asked = False
        self.trailers: list[Field] = []
        self.thread = threading.Thread(target=handle, args=(theirs,), name="front-lane", daemon=True)
        self.thread.start()

    def ask(self, stream: int, fields: list[Field], ended: bool) -> None:
        self.stream, self.begun, self.ended, self.asked, self.trailers = stream, False, False, False, []
        pseudo = {name: value for name, value in fields if name[:1] == b":"}
        own = [(b"-".join(word.capitalize() for word in name.split(b"-")), value) for name, value in fields if name[:1] != b":"]
        if crumbs := [value for name, value in own if name == b"Cookie"]:
            own = [*(field for field in own if field[0] != b"Cookie"), (b"Cookie", b"; ".join(crumbs))]
        names = {name for name, _ in own}
        if not ended and b"Content-Length" not in names:
            own.append((b"Transfer-Encoding", b"chunked"))
        self.up += self.h1.send(h11.Request(method=pseudo[b":method"], target=pseudo[b":path"],
                                            headers=[(b"Host", pseudo.get(b":authority", b"")), *own])) or b""
        if ended:
            self.finish([])

    def finish(self, trailers: list[Field]) -> None:
        self.asked = True
        self.up += self.h1.send(h11.EndOfMessage(headers=trailers)) or b""


class Front:
    """The server's side of one HTTP/2 connection."""

    def __init__(self, sock: socket.socket, handle: Handle) -> None:
        self.sock = sock
        self.handle = handle
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None, normalize_outbound_headers=False,
                                               validate_outbound_headers=False))
        self.lanes: list[Lane] = []
        self.threads: list[threading.Thread] = []
        self.over = False

    def run(self) -> None:
        self.h2.initiate_connection()
        self.lane()                           # as soon as a client is there, as with HTTP/1.1
        try:
            self.flush()
            while not self.over:
                self.turn()
        except (OSError, ProtocolError):      # the client left, or broke the protocol: its side says what it was told
            with suppress(OSError, ProtocolError):
                self.flush()
        finally:
            for lane in self.lanes:
                lane.sock.close()
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()
            for thread in self.threads:
                thread.join()

    def lane(self) -> Lane:
        lane = Lane(self.handle)
        self.lanes.append(lane)
        self.threads.append(lane.thread)
        return lane

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.sock.sendall(data)

    def turn(self) -> None:
        buffered = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0
        asked = poll()
        asked.register(self.sock, POLLIN)
        for lane in self.lanes:
            asked.register(lane.sock, (POLLIN if len(lane.down) < HELD else 0) | (POLLOUT if lane.up else 0))
        got = dict(asked.poll(0 if buffered else None))
        ready = [(lane, got[lane.sock.fileno()]) for lane in self.lanes if lane.sock.fileno() in got]
        if buffered or self.sock.fileno() in got:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the client left")
            for event in self.h2.receive_data(data):
                self.see(event)
        for lane, events in ready:
            if events & POLLOUT and lane in self.lanes:
                self.push(lane)
            if events & ~POLLOUT and lane in self.lanes:
                self.pull(lane)
        for lane in list(self.lanes):
            self.give(lane)
        self.flush()

    # --- from the client

    def of(self, stream: int) -> Lane | None:
        return next((lane for lane in self.lanes if lane.stream == stream), None)

    def see(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            assert event.headers is not None and event.stream_id is not None
            lane = next((lane for lane in self.lanes if not lane.stream), None) or self.lane()
            lane.ask(event.stream_id, [(bytes(n), bytes(v)) for n, v in event.headers], event.stream_ended is not None)
            self.push(lane)
        elif isinstance(event, DataReceived):
            assert event.stream_id is not None and event.flow_controlled_length is not None
            if (at := self.of(event.stream_id)) is None:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                return
            at.owed += event.flow_controlled_length
            at.up += at.h1.send(h11.Data(data=event.data)) or b""
            self.push(at)
        elif isinstance(event, TrailersReceived):
            assert event.headers is not None and event.stream_id is not None
            if (at := self.of(event.stream_id)) is not None:
                at.finish([(bytes(n), bytes(v)) for n, v in event.headers])
        elif isinstance(event, StreamEnded):
            assert event.stream_id is not None
            if (at := self.of(event.stream_id)) is not None and not at.asked:
                at.finish([])
                self.push(at)
        elif isinstance(event, StreamReset) and event.stream_id is not None and (at := self.of(event.stream_id)) is not None:
            self.drop(at)

    def push(self, lane: Lane) -> None:
        try:
            while lane.up:
                del lane.up[:lane.sock.send(lane.up)]
        except BlockingIOError:
            return
        except OSError:                       # the script closed: what it said before comes out of `pull`
            lane.up.clear()
        if lane.owed:
            self.h2.acknowledge_received_data(lane.owed, lane.stream)
            lane.owed = 0

    # --- from the script

    def pull(self, lane: Lane) -> None:
        try:
            data = lane.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not lane.stream:                   # it closed while idle, or spoke unasked
            self.end(lane)
            return
        try:
            lane.h1.receive_data(data)
            while lane in self.lanes and lane.stream:
                event = lane.h1.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                self.say(lane, event)
        except h11.RemoteProtocolError:
            self.end(lane)

    def say(self, lane: Lane, event: object) -> None:
        if isinstance(event, h11.InformationalResponse):
            self.h2.send_headers(lane.stream, self.fields(event))
        elif isinstance(event, h11.Response):
            lane.begun = True
            self.h2.send_headers(lane.stream, self.fields(event))
        elif isinstance(event, h11.Data):
            lane.down += event.data
        elif isinstance(event, h11.EndOfMessage):
            lane.ended = True
            lane.trailers = [(bytes(n).lower(), bytes(v)) for n, v in event.headers.raw_items()]
            self.give(lane)
        else:
            self.end(lane)

    def fields(self, event: h11.InformationalResponse | h11.Response) -> list[Field]:
        own = [(bytes(n).lower(), bytes(v)) for n, v in event.headers.raw_items()]
        hop = (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection")
        return [(b":status", b"%d" % event.status_code), *(field for field in own if field[0] not in hop)]

    def give(self, lane: Lane) -> None:
        """What the window takes of an answer's body, and the answer's end."""
        if not lane.stream or not lane.begun:
            return
        while lane.down:
            n = min(self.h2.local_flow_control_window(lane.stream), self.h2.max_outbound_frame_size, len(lane.down))
            if n <= 0:
                return
            self.h2.send_data(lane.stream, bytes(lane.down[:n]))
            del lane.down[:n]
        if not lane.ended:
            return
        if lane.trailers:
            self.h2.send_headers(lane.stream, lane.trailers, end_stream=True)
        else:
            self.h2.end_stream(lane.stream)
        if not lane.asked:                    # answered before the upload's end
            self.h2.reset_stream(lane.stream, ErrorCodes.NO_ERROR)
            self.drop(lane)
            return
        lane.stream = 0
        if lane.h1.our_state is h11.DONE and lane.h1.their_state is h11.DONE and lane.h1.trailing_data == (b"", False):
            lane.h1.start_next_cycle()
        else:
            self.end(lane)

    # --- ends

    def drop(self, lane: Lane) -> None:
        lane.stream = 0
        self.lanes.remove(lane)
        lane.sock.close()

    def end(self, lane: Lane) -> None:
        """The script's end of a lane: of the connection, where it is the only one."""
        stream = lane.stream
        self.drop(lane)
        if not self.lanes:
            if not stream:
                self.h2.close_connection()
            self.over = True
            self.flush()
        elif stream:
            self.h2.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)


def speaks_http2(sock: socket.socket) -> bool:
    """Whether HTTP/2 was chosen, or its preface comes. Waits for a client's first bytes."""
    if isinstance(sock, ssl.SSLSocket):
        return sock.selected_alpn_protocol() == "h2"
    return sock.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == b"PRI"


def serve(sock: socket.socket, handle: Handle) -> None:
    """`handle(sock)`, or HTTP/2 with `handle` behind it. Returns when the client is gone; `sock` is closed then."""
    try:
        over_http2 = speaks_http2(sock)
    except OSError:
        over_http2 = False
    if over_http2:
        Front(sock, handle).run()
    else:
        handle(sock)
