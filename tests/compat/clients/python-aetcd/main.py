"""The Python client aetcd 1.0.0 (PyPI), asyncio, gRPC. Of the asyncio clients it is the best kept: releases up to this
year for current gRPC and protobuf, with documentation and tests. etcd3aio has one release so far, etcetra needs a gRPC of
2024, and aioetcd3 has stood still since 2020.

Run alone, with the runner's environment: `./prepare && ./run`; `./run watch/ kv/put` runs the cases that begin so.
It has no calls for users and roles, so these go through its generated messages; it has neither TLS nor elections. It does
not log in again when a token has expired, and does not take up a watch again: the cases show what the application has to
do.
"""

import cases
import data
import limits
import security
import sessions
import watch

if __name__ == "__main__":
    cases.main()
