"""What the modules of this suite share: clients, and the errors of the server as this client shows them."""

import json

import etcd3gw
from etcd3gw.exceptions import Etcd3Exception

from cases import eq, raises, shared_server


def connect(server=None, **options):
    """A client of a server, by default of the shared one."""
    server = server or shared_server()
    return etcd3gw.client(host=server.host, port=server.port, **options)


class refused(raises):
    """A block that the server must refuse: the client keeps the body of the answer, which has gRPC's code and the text."""

    def __init__(self, code, text, error_class=Etcd3Exception):
        super().__init__(error_class)
        self._wanted = (code, text)

    def __exit__(self, *seen):
        if not super().__exit__(*seen):
            return False
        body = json.loads(self._raised.error.detail_text)
        eq((body["code"], body["message"]), self._wanted, "code and text")
        return True
