"""A way to a server that can be made slow, cut, or answered by somebody else."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

_CHUNK = 65536


class Proxy:
    """Listens on a port of the loopback address and passes everything on to another, as faithfully as it is told.

    Args:
        target: the port of the server.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_seconds = 0.0
        """For every chunk, each way."""
        self.delayed = 0
        """Chunks that came late."""
        self.cut: Callable[[int], bool] = lambda _number: False
        """Whether a connection is cut once the client has sent something; they are numbered from 1."""
        self.silent = False
        """Whether connections are taken and never answered."""
        self.response: Callable[[int], bytes | None] = lambda _number: None
        """What is answered instead of the server."""
        self.connections = 0
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Cuts every connection that there is."""
        while self._sockets:  # others come meanwhile
            with _closing():
                self._sockets.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while self._open:
            with _closing():
                client, _ = self._listener.accept()
                self.connections += 1
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client, self.connections), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        with _closing(), client:
            if self.silent:
                while client.recv(_CHUNK):
                    pass
                return
            if (response := self.response(number)) is not None:
                client.recv(_CHUNK)
                client.sendall(response)
                # Closed while a request is still coming in, it would be reset, and the response might be lost.
                client.shutdown(socket.SHUT_WR)
                while client.recv(_CHUNK):
                    pass
                return
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                self._sockets.append(server)
                while True:
                    for ready in select.select([client, server], [], [])[0]:
                        data = ready.recv(_CHUNK)
                        if not data or (ready is client and self.cut(number)):
                            return
                        if self.delay_seconds:
                            time.sleep(self.delay_seconds)
                            self.delayed += 1
                        (server if ready is client else client).sendall(data)


@contextmanager
def _closing() -> Iterator[None]:
    """Whatever happens to a connection here is meant to."""
    try:
        yield
    except OSError:
        return
