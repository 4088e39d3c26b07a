"""What any suite needs: TAP lines, the runner's control service, and a look into the store through etcdctl."""
import base64
import json
import os
import subprocess
import traceback
import urllib.request

_count = 0


def check(holds, otherwise):
    if not holds:
        raise AssertionError(otherwise)


class Series:
    """Cases that build on each other. After a failure, the later ones are not tried and fail as well."""

    def __init__(self, tell_more):
        self._tell_more = tell_more
        self._failed = None

    def case(self, name, body):
        global _count
        _count += 1
        if self._failed:
            print(f"not ok - app/{name}: not tried after «{self._failed}»", flush=True)
            return
        try:
            body()
        except Exception as error:  # whatever it is, it is this case's failure
            self._failed = name
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"not ok - app/{name}: {reason}", flush=True)
            for line in traceback.format_exc().splitlines():
                print("#", line, flush=True)
            self._tell_more()
        else:
            print(f"ok - app/{name}", flush=True)


def done():
    print(f"1..{_count}", flush=True)


class Control:
    """The runner's service that starts and stops servers."""

    def __init__(self, base):
        self._base = base

    def server(self, tls=False):
        return self._send("POST", "/servers", {"tls": tls})

    def kill(self, server):
        self._send("POST", f"/servers/{server['id']}/kill")

    def start(self, server):
        self._send("POST", f"/servers/{server['id']}/start")

    def remove(self, server):
        self._send("DELETE", f"/servers/{server['id']}")

    def _send(self, method, path, body=None):
        data = json.dumps(body or {}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self._base + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else {}


class Etcdctl:
    """etcdctl with the endpoint, and with the user once there is one."""

    def __init__(self, server):
        self._command = [os.path.join(os.environ["KVIST_TOOLS"], "etcdctl"), "--endpoints", server["endpoint"],
                         "--command-timeout=30s", "--dial-timeout=30s"]
        if "ca" in server:
            self._command += ["--cacert", server["ca"]]
        self.user = None

    def __call__(self, *args):
        user = ["--user", self.user] if self.user else []
        done = subprocess.run([*self._command, *user, *args], capture_output=True, text=True, timeout=40)
        check(done.returncode == 0, f"etcdctl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def pairs(self, prefix):
        """All pairs below `prefix`, by the rest of their key."""
        found = {}
        for pair in json.loads(self("get", "--prefix", prefix, "-w", "json")).get("kvs", []):
            key = base64.b64decode(pair["key"]).decode()
            pair["value"] = base64.b64decode(pair.get("value", "")).decode()
            pair.setdefault("lease", 0)
            found[key[len(prefix):]] = pair
        return found
