"""The Python client etcd3gw 2.7.0 (PyPI), of OpenStack: it speaks JSON over HTTP to the gateway, by the package requests.

Run alone, with the runner's environment: `./prepare && ./run`; `./run watch/ kv/put` runs the cases that begin so.
It has neither users nor elections; a program logs in by its `post` and gives the token to its session, as is done here.
A broken watch ends without a word in a thread of the client, so there is no case of a watch across a restart.
"""

import cases
import data
import sessions
import surroundings

if __name__ == "__main__":
    cases.main()
