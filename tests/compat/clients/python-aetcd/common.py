"""What the modules of this suite share: clients, and the errors of the server as this client shows them."""

import aetcd

from cases import eq, raises, shared_server

# Answers above gRPC's 4 MiB need this from a client.
LARGE_ANSWERS = {"grpc.max_receive_message_length": 64 << 20}
# A refused connection is tried again after this long, not after up to two minutes, in milliseconds.
QUICK_RECONNECT = {"grpc.initial_reconnect_backoff_ms": 50, "grpc.max_reconnect_backoff_ms": 100}


def connect(server=None, **options):
    """A client of a server, by default of the shared one; for `async with`."""
    server = server or shared_server()
    return aetcd.Client(host=server.host, port=server.port, **options)


class refused(raises):
    """A block that the server must refuse: the client has a class for some codes, and always the server's text."""

    def __init__(self, error_class, text):
        super().__init__(error_class)
        self._text = text

    def __exit__(self, *seen):
        if not super().__exit__(*seen):
            return False
        error = self._raised.error
        eq((type(error).__name__, str(error)), (self._class.__name__, self._text), "class and text")
        return True
