import socket

from pooledhttp._net.stream import Stream

class TcpStream(Stream):
    def __init__(self, sock: socket.socket | int) -> None: ...

def gil_releases() -> int: ...
