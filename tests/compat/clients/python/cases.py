"""What the Python suites share: cases and their TAP lines, assertions that say what they saw, and servers of the runner.

A module of a suite registers functions by `@case("kv/name")`; main.py imports the modules and ends with `main()`. Cases
that share a server, and all coroutines, run one after the other; beside them plain functions that start servers of their
own run `JOBS` at a time. No case takes longer than `PATIENCE`.
"""

import asyncio
import concurrent.futures
import inspect
import itertools
import json
import os
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request

# A case that has not ended by then is a failed one, in seconds.
PATIENCE = 90
# Most of their time goes by in waiting for servers and deadlines.
JOBS = 2
# How often a condition is looked at again, in seconds.
POLL = 0.02

_cases = []


class Skip(Exception):
    """Raised by a case that cannot be shown on this server; the text is the reason."""


def case(name):
    def register(function):
        _cases.append((name, function))
        return function

    return register


class Server:
    """A fresh server of the runner; gone at the end of a `with`."""

    def __init__(self, *flags, tls=False, client_cert_auth=False):
        asked = {"tls": tls, "client_cert_auth": client_cert_auth, "flags": list(flags)}
        self._told = json.loads(_control("POST", "/servers", asked))
        self.host, self.port, self.endpoint = (self._told[name] for name in ("host", "port", "endpoint"))
        self.peer_endpoint = self._told["peer_endpoint"]
        self.ca, self.cert, self.key = (self._told.get(name) for name in ("ca", "cert", "key"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _control("DELETE", f"/servers/{self._told['id']}")

    def _do(self, verb):
        _control("POST", f"/servers/{self._told['id']}/{verb}")

    def kill(self):
        self._do("kill")

    def stop(self):
        self._do("stop")

    def start(self):
        self._do("start")

    def pause(self):
        """Stops all threads."""
        self._do("pause")

    def resume(self):
        self._do("resume")


def _control(method, path, body=None):
    data = None if method == "DELETE" else json.dumps(body or {}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(os.environ["KVIST_CONTROL"] + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()
    except urllib.error.HTTPError as e:
        raise RuntimeError(f"{method} {path}: {e.code} {e.read().decode(errors='replace')}") from e


_shared = []
_prefixes = itertools.count(1)


def shared_server():
    """The server of all cases that disturb nobody: they use keys below `fresh()`. It ends with the runner."""
    if not _shared:
        _shared.append(Server())
    return _shared[0]


def fresh():
    """A prefix that no other case uses."""
    return f"case{next(_prefixes):03}/"


def eq(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError(f"{what}: got {_short(got)}, wanted {_short(wanted)}")


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def _short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"


class Raised:
    """Filled by `raises` when its block is over."""

    error = None


class raises:
    """A block that must end with this class of error; `seen.error` is the error."""

    def __init__(self, error_class):
        self._class = error_class
        self._raised = Raised()

    def __enter__(self):
        return self._raised

    def __exit__(self, error_class, error, _):
        if error_class is None:
            raise AssertionError(f"no error, wanted {self._class.__name__}")
        if not issubclass(error_class, self._class):
            return False
        self._raised.error = error
        return True


def wait_until(condition, what):
    """Polls until the condition gives something true, which it returns."""
    deadline = time.monotonic() + PATIENCE / 2
    while time.monotonic() < deadline:
        seen = condition()
        if seen:
            return seen
        time.sleep(POLL)
    raise AssertionError(f"waited in vain: {what}")


async def wait_until_async(condition, what):
    """The same for a coroutine function."""
    deadline = time.monotonic() + PATIENCE / 2
    while time.monotonic() < deadline:
        seen = await condition()
        if seen:
            return seen
        await asyncio.sleep(POLL)
    raise AssertionError(f"waited in vain: {what}")


def main():
    """Runs the cases whose names begin with one of the arguments, or all, and ends the process."""
    wanted = tuple(sys.argv[1:]) or ("",)
    chosen = [(name, function) for name, function in _cases if name.startswith(wanted)]
    loop = asyncio.new_event_loop()

    def coroutine(function):
        loop.run_until_complete(asyncio.wait_for(function(), PATIENCE))

    def is_apart(function):
        return not inspect.iscoroutinefunction(function) and Server.__name__ in function.__code__.co_names

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        apart = [pool.submit(_run, name, function, _in_thread) for name, function in chosen if is_apart(function)]
        passed = [
            _run(name, function, coroutine if inspect.iscoroutinefunction(function) else _in_thread)
            for name, function in chosen
            if not is_apart(function)
        ]
        passed += [future.result() for future in apart]
    print(f"1..{len(chosen)}", flush=True)
    # Threads of a client, or of a case that hung, do not hold the process back.
    os._exit(0 if all(passed) else 1)


def _run(name, function, how):
    """Runs a case, prints its lines at once, and tells whether it passed."""
    began, lines, passed = time.monotonic(), [], True
    try:
        how(function)
        lines.append(f"ok - {name}")
    except Skip as e:
        lines.append(f"ok - {name} # SKIP {e}")
    except Exception as e:  # noqa: BLE001 - whatever it is, the case has failed
        passed = False
        lines.append(f"not ok - {name}: {_reason(e)}")
        lines += [f"# {line}" for line in traceback.format_exc().splitlines()]
    lines.append(f"# {name} took {time.monotonic() - began:.2f} s")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    return passed


def _in_thread(function):
    outcome = []

    def body():
        try:
            function()
            outcome.append(None)
        except BaseException as e:  # noqa: BLE001 - handed over to the main thread
            outcome.append(e)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not outcome:
        stack = traceback.format_stack(sys._current_frames()[thread.ident])
        raise TimeoutError("no end in time; it is in " + stack[-1].strip().replace("\n", " "))
    if outcome[0] is not None:
        raise outcome[0]


def _reason(error):
    """An error in one line: its class, its text, and the line of the suite it came from."""
    if isinstance(error, asyncio.TimeoutError) and not str(error):
        error = TimeoutError("no end in time")
    text = " ".join(str(error).split()) or "no text"
    own = [f for f in traceback.extract_tb(error.__traceback__) if "/compat/clients/python-" in f.filename]
    where = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text[:400]}{where}"
