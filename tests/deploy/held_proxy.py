"""A TCP proxy that can hold back what one side says: how an answer gets lost between two programs."""

import contextlib
import socket
import threading


class HeldProxy:
    """Passes bytes between its port and a server. `hold_answers` and `hold_requests` stop one direction, and keep the bytes."""

    def __init__(self, host, port, server_host, server_port):
        self.server = (server_host, server_port)
        self._answers, self._requests = threading.Event(), threading.Event()
        self._answers.set()
        self._requests.set()
        self._connections = []
        self._listener = socket.create_server((host, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_answers(self):
        """What the server says stays here."""
        self._answers.clear()

    def hold_requests(self):
        """What clients say stays here."""
        self._requests.clear()

    def release(self):
        """Passes everything on again."""
        self._answers.set()
        self._requests.set()

    def cut(self):
        """Closes all connections, with what is held."""
        connections, self._connections = self._connections, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(self.server, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._connections += [client, server]
            threading.Thread(target=self._pass, args=(client, server, self._requests), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, self._answers), daemon=True).start()

    @staticmethod
    def _pass(source, target, gate):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                gate.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
