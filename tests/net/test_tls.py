"""The TLS stream: bytes, deadlines, ends, the idle connection, and what the peer may say besides data."""
from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from pooledhttp._core import runtime
from pooledhttp._net import testing
from pooledhttp._net.tls import TlsStream

from .conftest import Certificates, Peer, Tls, TlsPeer, lateness, reset, shake, tcp_pair
from .test_tcp import both_ways

pytestmark = pytest.mark.usefixtures("tls_mode")

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def tls(certs: Certificates) -> Iterator[Tls]:
    with Tls(certs) as pair:
        yield pair


def arrived(stream: TlsStream) -> None:
    assert testing.wait(stream, "r", 5.0) == "r"


# -- the handshake --

@pytest.mark.parametrize("version", VERSIONS)
def test_facts(certs: Certificates, version: ssl.TLSVersion) -> None:
    with Tls(certs, maximum_version=version) as tls:
        assert tls.stream.tls_version == version.name.replace("_", ".")
        assert (tls.peer.obj.cipher() or (None,))[0] == tls.stream.cipher_name
        assert tls.stream.alpn == "http/1.1"
        assert tls.stream.session_reused is False
        assert tls.stream.handshake_step() == "done"


def test_the_socket_changes_hands_only_where_the_stream_is_made(certs: Certificates) -> None:
    ours, theirs = tcp_pair()
    with pytest.raises(ValueError):
        TlsStream(ours, certs.client(), ".bad")
    assert ours.fileno() >= 0
    ours.close()
    theirs.close()


def test_handshake_in_single_bytes(certs: Certificates) -> None:
    ours, theirs = tcp_pair()
    stream, peer = TlsStream(ours, certs.client(), "localhost"), TlsPeer(theirs, certs.server())
    steps, done = [], False
    while True:
        steps.append(stream.handshake_step())
        done = done or peer.handshake()
        if steps[-1] == "done":
            break
        for byte in peer.take():
            assert stream.handshake_step() == "read"
            theirs.sendall(bytes([byte]))
    assert done or peer.handshake()
    peer.push()
    testing.send(stream, b"ping")
    assert peer.recv(4) == b"ping"
    testing.close(stream)
    theirs.close()


def test_handshake_ends_with_the_socket(certs: Certificates) -> None:
    for end, expected in ((socket.socket.close, ssl.SSLEOFError), (reset, ConnectionResetError)):
        ours, theirs = tcp_pair()
        stream = TlsStream(ours, certs.client(), "localhost")
        assert stream.handshake_step() == "read"
        if end is not reset:
            theirs.recv(65536)                        # unread bytes would make it a reset
        end(theirs)
        with pytest.raises(expected):
            while stream.handshake_step() == "read":
                arrived(stream)
        stream.abandon()
        assert stream.fileno() == -1


def test_the_peer_hears_why_we_refuse(certs: Certificates) -> None:
    ours, theirs = tcp_pair()
    stream, peer = TlsStream(ours, certs.client(), "wrong.test"), TlsPeer(theirs, certs.server())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(stream, peer)
    with pytest.raises(ssl.SSLError, match="(?i)alert bad certificate"):
        peer.recv(1)
    stream.abandon()
    theirs.close()


# -- bytes --

def test_back_and_forth(tls: Tls) -> None:
    for i in range(5):
        testing.send(tls.stream, b"ping%d" % i)
        assert tls.peer.recv(5) == b"ping%d" % i
        tls.peer.send(b"pong%d" % i)
        assert testing.recv(tls.stream, 100, 1.0) == b"pong%d" % i
        assert testing.probe(tls.stream) == "ok"


def test_a_small_buffer_leaves_the_rest_for_later(tls: Tls) -> None:
    tls.peer.send(b"abcdef")
    assert testing.recv(tls.stream, 2, 1.0) == b"ab"
    assert testing.wait(tls.stream, "r", 0.0) == "r"      # decrypted bytes count, the socket is quiet
    assert testing.wait(tls.stream, "rw", 0.0) == "rw"
    assert testing.try_recv(tls.stream, 2) == b"cd"
    assert testing.recv(tls.stream, 2, 0.0) == b"ef"
    with pytest.raises(TimeoutError):
        testing.wait(tls.stream, "r", 0.01)
    assert testing.try_recv(tls.stream, 2) is None


def test_records_that_came_together_are_received_together(tls: Tls) -> None:
    tls.peer.sock.sendall(b"".join(tls.peer.cipher(b"%d" % i) for i in range(10)))
    assert testing.recv(tls.stream, 100, 1.0) == b"0123456789"
    tls.peer.sock.sendall(b"".join(tls.peer.cipher(b"%d" % i) for i in range(10)))
    assert testing.recv(tls.stream, 4, 1.0) == b"0123"
    assert testing.wait(tls.stream, "r", 0.0) == "r"      # whole records, not decrypted yet
    assert testing.recv(tls.stream, 100, 0.0) == b"456789"


def test_records_cut_anywhere(certs: Certificates) -> None:
    with Tls(certs) as tls:
        for cut in range(1, 60):
            wire = tls.peer.cipher(b"ab" * 3) + tls.peer.cipher(b"cde")
            cut = min(cut, len(wire) - 1)
            tls.peer.sock.sendall(wire[:cut])
            arrived(tls.stream)
            early = testing.try_recv(tls.stream, 100) or b""
            tls.peer.sock.sendall(wire[cut:])
            got = early
            while len(got) < 9:
                got += testing.recv(tls.stream, 100, 1.0)
            assert got == b"abababcde"


def test_single_bytes_through_a_relay(certs: Certificates) -> None:
    ours, near = tcp_pair()
    far, theirs = tcp_pair()

    def relay(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            for byte in data:
                sink.sendall(bytes([byte]))
        sink.shutdown(socket.SHUT_WR)

    def serve() -> bytes:
        with certs.server().wrap_socket(theirs, server_side=True) as sock:
            got = sock.recv(100)
            sock.sendall(b"x" * 3000)
            sock.sendall(b"y" * 3000)
            sock.unwrap()
            return got

    with Peer(relay, near, far), Peer(relay, far, near), Peer(serve) as server:
        stream = TlsStream(ours, certs.client(), "localhost")
        while (step := stream.handshake_step()) != "done":
            testing.wait(stream, step[0], 5.0)
        testing.send(stream, b"hello")
        got = b""
        while piece := testing.recv(stream, 65536, 5.0):
            got += piece
        assert got == b"x" * 3000 + b"y" * 3000
        assert stream.clean and not stream.cut
        testing.close(stream)
        assert server.join() == b"hello"
    for sock in (near, far):
        sock.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("buffers", [8192, None])
def test_ten_mebibytes_each_way(certs: Certificates, version: ssl.TLSVersion, buffers: int | None) -> None:
    data = os.urandom(1 << 20) * 10
    with Tls(certs, buffers=buffers, maximum_version=version) as tls:
        ours = tls.stream
        peer = tls.peer

        def echo() -> None:
            left = len(data)
            while left:
                got = bytearray(peer.recv(1))
                while peer.obj.pending() or peer.incoming.pending:
                    try:
                        got += peer.obj.read(65536)
                    except ssl.SSLWantReadError:
                        break
                at, view = 0, memoryview(got)
                while at < len(got):
                    at += peer.obj.write(view[at:])
                peer.push()
                left -= len(got)

        with Peer(echo):
            assert both_ways(ours, data) == data


def test_a_send_accepts_no_more_than_64_kib_and_nothing_behind_unsent_bytes(certs: Certificates) -> None:
    with Tls(certs, buffers=4096) as tls:
        data = os.urandom(1 << 20)
        at = testing.try_send(tls.stream, data)
        assert at == 65536
        while not testing.try_flush(tls.stream):
            assert testing.try_send(tls.stream, data[at:]) is None
            tls.peer.pull()
        assert tls.peer.recv(65536) == data[:65536]


def test_idle_connection_keeps_little_memory(tls: Tls) -> None:
    # OpenSSL's BIOs are not seen by tracemalloc; ours are: no buffer, no ciphertext.
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        testing.send(tls.stream, bytes(30000))
        tls.peer.recv(30000)
        tls.peer.send(b"x")
        assert testing.recv(tls.stream, 1, 1.0) == b"x"
        tls.peer.send(b"x")
        assert testing.recv(tls.stream, 1, 1.0) == b"x"
        assert tracemalloc.get_traced_memory()[0] - base < 20000
    finally:
        tracemalloc.stop()
    assert runtime.live()["buffers"] == 0


class Counting:
    """Stands for an SSLObject, counting the calls into `ssl`."""

    def __init__(self, real: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> None:
        self.real = real
        self.outgoing = outgoing
        self.says = b""                               # what TLS answers of its own at the next read
        self.calls: list[str] = []
        self.raised: list[str] = []
        self.raise_next: BaseException | None = None

    def read(self, n: int, into: memoryview) -> Any:
        return self._call("read", self.real.read, n, into)

    def write(self, data: memoryview) -> Any:
        return self._call("write", self.real.write, data)

    def _call(self, name: str, method: Any, *args: Any) -> Any:
        self.calls.append(name)
        if name == "read" and self.says:
            self.outgoing.write(self.says)
            self.says = b""
        if self.raise_next is not None:
            raise self.raise_next
        try:
            return method(*args)
        except BaseException as exc:
            self.raised.append(type(exc).__name__)
            raise

    def pending(self) -> int:
        self.calls.append("pending")
        return self.real.pending()

    def do_handshake(self) -> None:
        self.real.do_handshake()

    def unwrap(self) -> None:
        self.real.unwrap()


class CountingContext(ssl.SSLContext):
    counting: Counting

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kw: Any) -> Any:
        self.counting = Counting(super().wrap_bio(incoming, outgoing, *args, **kw), outgoing)
        return self.counting


@pytest.fixture
def counted(certs: Certificates) -> Iterator[tuple[TlsStream, TlsPeer, Counting]]:
    context = CountingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certs.ca_file)
    ours, theirs = tcp_pair()
    stream, peer = TlsStream(ours, context, "localhost"), TlsPeer(theirs, certs.server())
    shake(stream, peer)
    assert testing.probe(stream) == "ok"              # the tickets
    context.counting.calls.clear()
    context.counting.raised.clear()
    yield stream, peer, context.counting
    stream.abandon()
    theirs.close()


def test_a_small_exchange_calls_ssl_twice_and_raises_nothing(counted: tuple[TlsStream, TlsPeer, Counting]) -> None:
    stream, peer, counting = counted
    for _ in range(3):
        testing.send(stream, b"ask")
        assert peer.recv(3) == b"ask"
        wire = peer.cipher(b"answer")
        peer.sock.sendall(wire[:7])
        assert testing.wait(stream, "r", 1.0) == "r"
        assert testing.try_recv(stream, 100) is None  # no whole record: not ssl's business
        peer.sock.sendall(wire[7:])
        assert testing.recv(stream, 100, 1.0) == b"answer"
        assert testing.probe(stream) == "ok"
    assert counting.calls == ["write", "read"] * 3 and counting.raised == []


def test_a_large_answer_costs_one_read_a_record(counted: tuple[TlsStream, TlsPeer, Counting]) -> None:
    stream, peer, counting = counted
    for _ in range(4):
        peer.send(bytes(16384))
    got = 0
    while got < 65536:
        got += len(testing.recv(stream, 1 << 20, 1.0))
    assert counting.calls == ["read"] * 4 and counting.raised == []


def test_what_tls_answers_of_its_own_is_sent_with_a_receive(counted: tuple[TlsStream, TlsPeer, Counting]) -> None:
    stream, peer, counting = counted
    for blocking in (True, False):
        counting.says = b"own"
        peer.send(b"x")
        assert testing.wait(stream, "r", 1.0) == "r"
        assert (testing.recv(stream, 1, 1.0) if blocking else testing.try_recv(stream, 1)) == b"x"
        assert peer.sock.recv(100) == b"own"


def test_a_write_that_must_read_first_waits_for_that(counted: tuple[TlsStream, TlsPeer, Counting]) -> None:
    stream, peer, counting = counted
    counting.raise_next = ssl.SSLWantReadError()
    assert testing.try_send(stream, b"ask") is None
    with pytest.raises(TimeoutError):
        testing.wait(stream, "w", 0.05)               # though the socket would take bytes: no busy loop
    peer.send(b"x")
    assert testing.wait(stream, "w", 1.0) == "w"
    counting.raise_next = None
    assert testing.try_send(stream, b"ask") == 3
    assert peer.recv(3) == b"ask"
    assert testing.recv(stream, 100, 1.0) == b"x"     # what was read on the way is not lost


def test_records_without_data_do_not_hold_a_receive_past_its_deadline(counted: tuple[TlsStream, TlsPeer, Counting]) -> None:
    stream, peer, counting = counted
    counting.raise_next = ssl.SSLWantReadError()      # as for tickets
    for _ in range(10):
        peer.send(bytes(16000))
    with pytest.raises(TimeoutError):
        testing.recv(stream, 1, 0.0)
    assert testing.wait(stream, "r", 0.1) == "r"      # one helping was read, not all that came


def test_records_without_data_do_not_hold_a_probe(counted: tuple[TlsStream, TlsPeer, Counting]) -> None:
    stream, peer, counting = counted
    counting.raise_next = ssl.SSLWantReadError()
    peer.sock.settimeout(5)
    peer.sock.sendall(b"".join(peer.cipher(bytes(16000)) for _ in range(40)))
    assert testing.probe(stream) == "proto"           # it was read for a while, not to its end
    counting.raise_next = None


def test_a_peer_that_has_tls_answer_and_reads_nothing(counted: tuple[TlsStream, TlsPeer, Counting]) -> None:
    stream, peer, counting = counted
    counting.raise_next = ssl.SSLWantReadError()

    def updates() -> None:
        with contextlib.suppress(OSError):            # it closes
            while True:
                peer.sock.sendall(wire)

    wire = peer.cipher(b"as for key updates")
    with Peer(updates):
        with pytest.raises(ssl.SSLError, match="without end"):
            for _ in range(200):                      # 40 MB: more than the kernel takes
                assert testing.wait(stream, "r", 5.0) == "r"
                counting.says = bytes(200_000)
                assert testing.try_recv(stream, 100) is None
        stream.abandon()


def test_receiving_while_bytes_are_unsent(certs: Certificates) -> None:
    with Tls(certs, buffers=4096) as tls:
        while testing.try_send(tls.stream, bytes(65536)):
            pass
        tls.peer.send(b"x")
        assert testing.recv(tls.stream, 1, 1.0) == b"x"
        lateness(0.1, lambda: testing.recv(tls.stream, 1, 0.1), TimeoutError, rounds=1)
        with pytest.raises(TimeoutError):
            testing.wait(tls.stream, "r", 0.05)
        with Peer(tls.peer.recv, 65536):              # takes it all, by which ours is sent within the wait
            with pytest.raises(TimeoutError):
                testing.recv(tls.stream, 1, 0.2)
            assert testing.try_flush(tls.stream)


@pytest.mark.parametrize("call", ["recv", "send"])
def test_what_a_signals_handler_raises_inside_ssl_is_not_lost(counted: tuple[TlsStream, TlsPeer, Counting], call: str) -> None:
    stream, peer, counting = counted
    peer.send(b"x")
    counting.raise_next = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        if call == "recv":
            testing.recv(stream, 1, 1.0)
        else:
            testing.send(stream, b"x")
    counting.raise_next = None
    assert testing.probe(stream) == "eof"             # what was decrypted then is gone: it must not be used again


# -- deadlines, wake-ups, signals --

@pytest.mark.parametrize(("timeout", "wake"), [(0.3, False), (0.3, True), (3.0, False)])
def test_recv_deadline(tls: Tls, timeout: float, wake: bool) -> None:
    lateness(timeout, lambda: testing.recv(tls.stream, 1, timeout, wake=wake), TimeoutError, rounds=3 if timeout < 1 else 1)


def test_recv_deadline_holds_while_a_record_trickles_in(tls: Tls) -> None:
    wire = tls.peer.cipher(b"x" * 500)
    stop = threading.Event()

    def trickle() -> int:
        sent = 0
        while not stop.wait(0.01):
            tls.peer.sock.sendall(wire[sent:sent + 1])
            sent += 1
        return sent

    with Peer(trickle) as peer:
        lateness(0.3, lambda: testing.recv(tls.stream, 1, 0.3), TimeoutError)
        stop.set()
        sent = peer.join()
    tls.peer.sock.sendall(wire[sent:])
    assert testing.recv(tls.stream, 1000, 1.0) == b"x" * 500      # nothing of the start was lost


def test_send_deadline(certs: Certificates) -> None:
    with Tls(certs, buffers=4096) as tls:
        lateness(0.3, lambda: testing.send(tls.stream, bytes(1 << 20), 0.3), TimeoutError, rounds=1)


def test_wake_breaks_a_wait_in_mid_record(tls: Tls) -> None:
    wire = tls.peer.cipher(b"hello")
    tls.peer.sock.sendall(wire[:10])
    timer = threading.Timer(0.1, runtime.current_wake().signal)
    timer.start()
    with pytest.raises(testing.Woken):
        testing.recv(tls.stream, 100, 5.0, wake=True)
    timer.join()
    tls.peer.sock.sendall(wire[10:])
    assert testing.recv(tls.stream, 100, 1.0, wake=True) == b"hello"


def test_a_signals_handler_runs_within_a_wait_and_no_byte_is_lost(tls: Tls) -> None:
    wire = tls.peer.cipher(b"hello")
    tls.peer.sock.sendall(wire[:10])
    seen = []

    def handler(*_: object) -> None:
        seen.append(time.monotonic())
        tls.peer.sock.sendall(wire[10:])

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert testing.recv(tls.stream, 100, 5.0) == b"hello"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(seen) == 1


# -- ends --

def test_close_notify_is_a_clean_end(tls: Tls) -> None:
    tls.peer.send(b"last")
    tls.peer.goodbye()
    tls.peer.sock.close()
    assert testing.recv(tls.stream, 100, 1.0) == b"last"
    assert testing.recv(tls.stream, 100, 1.0) == b""
    assert testing.recv(tls.stream, 100, 1.0) == b""
    assert tls.stream.clean and not tls.stream.cut
    assert testing.probe(tls.stream) == "eof"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("before", [b"", b"some"])
@pytest.mark.parametrize("torn", [False, True])
def test_a_bare_end_is_truncation(certs: Certificates, version: ssl.TLSVersion, before: bytes, torn: bool) -> None:
    with Tls(certs, maximum_version=version) as tls:
        if before:
            tls.peer.send(before)
        if torn:
            tls.peer.sock.sendall(tls.peer.cipher(b"never whole")[:-1])
        tls.peer.sock.shutdown(socket.SHUT_WR)
        if before:
            assert testing.recv(tls.stream, 100, 1.0) == before
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match="truncated"):
                testing.recv(tls.stream, 100, 1.0)
        assert tls.stream.cut and not tls.stream.clean
        assert testing.probe(tls.stream) == "eof"


def test_a_reset_is_truncation(tls: Tls) -> None:
    reset(tls.peer.sock)
    with pytest.raises(ConnectionResetError, match="truncated"):
        testing.recv(tls.stream, 100, 1.0)
    assert tls.stream.cut and not tls.stream.clean


def test_a_forged_record_is_an_error_and_stays_one(tls: Tls) -> None:
    wire = bytearray(tls.peer.cipher(b"hello"))
    wire[-1] ^= 1
    tls.peer.sock.sendall(wire)
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="(?i)bad record mac|decryption failed"):
            testing.recv(tls.stream, 100, 1.0)
    assert not tls.stream.cut and not tls.stream.clean


@pytest.mark.parametrize("junk", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x17\x03\x03\xff\xff", b"\x17\x03\x03\x00\x00"])
def test_junk_instead_of_a_record_is_an_error_at_once(tls: Tls, junk: bytes) -> None:
    tls.peer.sock.sendall(junk)
    with pytest.raises(ssl.SSLError):
        testing.recv(tls.stream, 100, 1.0)


def test_what_broke_tls_is_said_to_who_sends_as_well(tls: Tls) -> None:
    tls.peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError, match="(?i)wrong version number") as first:
        testing.recv(tls.stream, 100, 1.0)
    with pytest.raises(ssl.SSLError) as second:
        testing.send(tls.stream, b"more", 1.0)
    assert second.value is first.value


def test_graceful_close_says_goodbye(tls: Tls) -> None:
    assert testing.probe(tls.stream) == "ok"              # reads the tickets: unread bytes would make the close a reset
    testing.close(tls.stream, True)
    tls.peer.pull()
    assert tls.peer.obj.read(1) == b""                    # close_notify
    assert tls.peer.sock.recv(1) == b""


def test_abrupt_close_says_nothing(tls: Tls) -> None:
    assert testing.probe(tls.stream) == "ok"
    testing.close(tls.stream, False)
    assert tls.peer.sock.recv(100) == b""


def test_a_goodbye_that_the_kernel_cannot_take_does_not_wait(certs: Certificates) -> None:
    with Tls(certs, buffers=4096) as tls:
        while testing.try_send(tls.stream, bytes(65536)):
            pass
        start = time.monotonic()
        testing.close(tls.stream, True)
        assert time.monotonic() - start < 0.05


def test_dropping_the_stream_closes_it(certs: Certificates) -> None:
    tls = Tls(certs)
    assert testing.probe(tls.stream) == "ok"
    del tls.stream
    assert tls.peer.sock.recv(100) == b""
    tls.peer.sock.close()


def test_sending_to_the_dead(tls: Tls) -> None:
    reset(tls.peer.sock)
    arrived(tls.stream)
    with pytest.raises(OSError):
        testing.send(tls.stream, b"x")
    with pytest.raises(OSError):
        testing.try_send(tls.stream, b"x")
    assert testing.probe(tls.stream) == "eof"


# -- the idle connection --

def test_tickets_on_an_idle_connection_are_read_and_it_lives(certs: Certificates) -> None:
    with Tls(certs, tickets=False) as tls:
        assert testing.probe(tls.stream) == "ok"
        tls.peer.push()
        arrived(tls.stream)
        assert testing.probe(tls.stream) == "ok"
        with pytest.raises(TimeoutError):
            testing.wait(tls.stream, "r", 0.0)            # they were taken off the socket
        tls.peer.send(b"answer")
        assert testing.recv(tls.stream, 100, 1.0) == b"answer"


def test_tickets_before_the_answer_are_passed_over(certs: Certificates) -> None:
    with Tls(certs, tickets=False) as tls:
        tls.peer.push()
        arrived(tls.stream)
        assert testing.try_recv(tls.stream, 100) is None
        tls.peer.send(b"answer")
        assert testing.recv(tls.stream, 100, 1.0) == b"answer"
    with Tls(certs, tickets=False) as tls:
        tls.peer.sock.sendall(tls.peer.take() + tls.peer.cipher(b"answer"))
        assert testing.recv(tls.stream, 100, 1.0) == b"answer"


def test_data_that_came_with_the_end_of_the_handshake(certs: Certificates) -> None:
    ours, theirs = tcp_pair()
    stream, peer = TlsStream(ours, certs.client(maximum_version=ssl.TLSVersion.TLSv1_2), "localhost"), TlsPeer(theirs, certs.server())
    assert stream.handshake_step() == "read"
    assert not peer.handshake()
    peer.push()
    assert stream.handshake_step() == "read"
    assert peer.handshake()
    theirs.sendall(peer.take() + peer.cipher(b"unasked"))
    assert stream.handshake_step() == "done"
    assert testing.wait(stream, "r", 0.0) == "r"
    assert testing.probe(stream) == "proto"
    stream.abandon()
    theirs.close()


def test_unasked_data_on_an_idle_connection(tls: Tls) -> None:
    tls.peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    arrived(tls.stream)
    assert testing.probe(tls.stream) == "proto"


def test_the_start_of_a_record_on_an_idle_connection_is_not_trusted(tls: Tls) -> None:
    wire = tls.peer.cipher(b"unasked")
    for piece in (wire[:3], wire[3:10]):
        tls.peer.sock.sendall(piece)
        arrived(tls.stream)
        assert testing.probe(tls.stream) == "proto"


@pytest.mark.parametrize("polite", [True, False])
def test_the_end_of_an_idle_connection(tls: Tls, polite: bool) -> None:
    if polite:
        tls.peer.goodbye()
    tls.peer.sock.close()
    arrived(tls.stream)
    assert testing.probe(tls.stream) == "eof"
    assert tls.stream.clean == polite


def test_leftover_plaintext_is_unasked(tls: Tls) -> None:
    tls.peer.send(b"abc")
    assert testing.recv(tls.stream, 2, 1.0) == b"ab"
    assert testing.probe(tls.stream) == "proto"
