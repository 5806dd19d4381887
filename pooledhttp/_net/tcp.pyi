import socket

from typing_extensions import Self, disjoint_base

from pooledhttp._net.stream import Stream

@disjoint_base
class TcpStream(Stream):
    def __new__(cls, sock: socket.socket | int) -> Self: ...

def gil_releases() -> int: ...
