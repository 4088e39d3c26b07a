"""What the modules of this suite share: clients, and the errors of the server as this client shows them."""

import grpc

import etcd3
import etcd3.exceptions
from cases import raises, shared_server, eq

# Answers above gRPC's 4 MiB need this from a client.
LARGE_ANSWERS = [("grpc.max_receive_message_length", 64 << 20)]
# A refused connection is tried again after this long, not after up to two minutes, in milliseconds.
QUICK_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]


def connect(server=None, **options):
    """A client of a server, by default of the shared one."""
    server = server or shared_server()
    return etcd3.client(host=server.host, port=server.port, **options)


class refused:
    """A block that the server must refuse with this code and text. The client passes most codes on as gRPC's error and
    turns some into its own classes, whose cause is gRPC's."""

    def __init__(self, code, text, as_class=grpc.RpcError):
        self._code, self._text = code, text
        self._raises = raises(as_class)

    def __enter__(self):
        self._raised = self._raises.__enter__()
        return self._raised

    def __exit__(self, *seen):
        if not self._raises.__exit__(*seen):
            return False
        error = self._raised.error
        cause = error if isinstance(error, grpc.RpcError) else error.__context__
        eq((cause.code().name, cause.details()), (self._code, self._text), "code and text")
        return True
