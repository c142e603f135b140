"""A TCP proxy that can hold back what one side says: how an answer gets lost between two programs."""

import contextlib
import socket
import threading


class HeldProxy:
    """Passes bytes between its port and a server, and keeps those of one direction back when told to.

    Connections that are made meanwhile get the server's part of their TLS handshake: what is kept are answers.
    """

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
            asked = threading.Event()
            threading.Thread(target=self._requests_of, args=(client, server, asked), daemon=True).start()
            threading.Thread(target=self._answers_to, args=(client, server, asked), daemon=True).start()

    def _requests_of(self, client, server, asked):
        with contextlib.suppress(OSError):
            greeted = False
            while data := client.recv(65536):
                self._requests.wait()
                # First comes its part of the handshake.
                if greeted:
                    asked.set()
                greeted = True
                server.sendall(data)
        self._close(client, server)

    def _answers_to(self, client, server, asked):
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if asked.is_set():
                    self._answers.wait()
                client.sendall(data)
        self._close(client, server)

    @staticmethod
    def _close(*ends):
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
