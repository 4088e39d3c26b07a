"""The Python client etcd3 0.12.0 (PyPI), synchronous, gRPC: the one that most Python programs still use.

Run alone, with the runner's environment: `./prepare && ./run`; `./run watch/ "kv/put"` runs the cases that begin so.
It has no calls for users and roles, so these go through its generated messages; it has no elections, and its filters of
watches fail inside the client. It does not log in again when a token has expired, and does not take up a watch again:
the cases show what the application has to do.
"""

import cases
import kv
import limits
import security
import sessions
import txn
import watch

if __name__ == "__main__":
    cases.main()
