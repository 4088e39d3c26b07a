"""A Patroni cluster on loopback: its nodes, their processes and files, and questions about it."""
import contextlib
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import psycopg2

from matrix import check

LOOP_WAIT = 2
RETRY_TIMEOUT = 5
SUPERUSER = {"username": "postgres", "password": "feldspar"}
REPLICATION = {"username": "replicator", "password": "quartz"}
# What may happen while a node is on its way up or down, and means "not yet".
NOT_YET = (OSError, psycopg2.Error, KeyError, ValueError)


def wait(what, condition, secs):
    """Polls until `condition` gives something true, and returns it."""
    end = time.monotonic() + secs
    error = None
    while time.monotonic() < end:
        try:
            result = condition()
            if result:
                return result
        except NOT_YET as not_yet:
            error = not_yet
        except AssertionError as not_yet:
            error = not_yet
        time.sleep(0.2)
    raise AssertionError(f"waited {secs} s in vain until {what}" + (f"; last error: {error}" if error else ""))


def account():
    """Whom PostgreSQL runs as: it refuses root."""
    if os.getuid() != 0:
        return None
    return pwd.getpwnam("postgres")


def below(directory):
    """Processes whose working directory is at or below `directory`: those of Patroni and PostgreSQL."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                place = os.readlink(f"/proc/{name}/cwd")
                if place == directory or place.startswith(directory + "/"):
                    found.append(int(name))
    return found


def kill_below(directory):
    """SIGKILL to all of them, again until none is left: they may be forking."""
    for _ in range(100):
        pids = below(directory)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Children of this process stay as zombies, without a directory, until they are waited for.
        if not pids:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes below {directory} do not end")


@contextlib.contextmanager
def scratch_directory(keep):
    """A directory for PostgreSQL's user, below /tmp, where every parent may be searched by it.

    PostgreSQL leaves the process group of whoever starts it. So a guardian waits for the end of this process, however
    it comes, ends what runs in the directory, and removes it.
    """
    base = tempfile.mkdtemp(prefix="kvist-patroni-", dir="/tmp")
    if account():
        os.chown(base, account().pw_uid, account().pw_gid)
    end, ours = os.pipe()
    guardian = os.fork()
    if guardian == 0:
        os.setsid()
        os.close(ours)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        os.read(end, 1)
        kill_below(base)
        if not keep:
            shutil.rmtree(base, ignore_errors=True)
        os._exit(0)
    os.close(end)
    try:
        yield base
    finally:
        if keep:
            print(f"# logs: {base}/*/log", flush=True)
        os.close(ours)
        os.waitpid(guardian, 0)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Node:
    """One Patroni with its PostgreSQL. Its processes have working directories at or below `self.directory`."""

    def __init__(self, base, scope, name, etcd3, ttl):
        self.name = name
        self.directory = os.path.join(base, name)
        self.api = free_port()
        self.port = free_port()
        self.process = None
        self.config = os.path.join(self.directory, "patroni.yml")
        os.mkdir(self.directory, 0o700)
        # JSON is YAML.
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump(self._settings(scope, etcd3, ttl), file, indent=1)
        if account():
            for path in (self.directory, self.config):
                os.chown(path, account().pw_uid, account().pw_gid)

    def _settings(self, scope, etcd3, ttl):
        api, port = f"127.0.0.1:{self.api}", f"127.0.0.1:{self.port}"
        binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda p: int(p.split("/")[4]))
        dcs = {"ttl": ttl, "loop_wait": LOOP_WAIT, "retry_timeout": RETRY_TIMEOUT, "failsafe_mode": True,
               "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": {"max_connections": 20}}}
        return {
            "scope": scope, "name": self.name, "restapi": {"listen": api, "connect_address": api}, "etcd3": etcd3,
            "bootstrap": {"dcs": dcs, "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", "no-sync"]},
            "postgresql": {
                "listen": port, "connect_address": port, "data_dir": os.path.join(self.directory, "data"),
                "bin_dir": os.path.dirname(binaries[-1]), "pgpass": os.path.join(self.directory, "pgpass"),
                "authentication": {"superuser": SUPERUSER, "replication": REPLICATION},
                "pg_hba": ["host replication all 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"],
                # The machine stays up, so that what is killed needs no fsync.
                "parameters": {"unix_socket_directories": self.directory, "shared_buffers": "16MB", "fsync": "off"},
            },
        }

    def start(self):
        who = {}
        if account():
            who = {"user": account().pw_uid, "group": account().pw_gid, "extra_groups": []}
        environment = {"PATH": "/usr/bin:/bin", "HOME": self.directory, "LC_ALL": "C.UTF-8"}
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(["/usr/bin/patroni", self.config], cwd=self.directory, env=environment,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, **who)

    def kill(self):
        """SIGKILL to Patroni and every process of PostgreSQL's."""
        kill_below(self.directory)
        if self.process:
            self.process.wait()
            self.process = None

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def ask(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.api}{path}", timeout=5) as answer:
            return json.load(answer)

    def sql(self, statement, *values):
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, dbname="postgres", user=SUPERUSER["username"],
                                      password=SUPERUSER["password"], connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("set statement_timeout = '10s'")
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


class Cluster:
    def __init__(self, base, scope, names, server, etcdctl, ttl, user=None):
        self.scope = scope
        self._base = base
        self._server = server
        self._etcdctl = etcdctl
        self._ttl = ttl
        self.nodes = [Node(base, scope, name, self._etcd3(user or {}), ttl) for name in names]

    def _etcd3(self, user):
        settings = {"hosts": [f"127.0.0.1:{self._server['port']}"], **user}
        if user:
            # Patroni asks for the list of members before it logs in, which etcd refuses since 3.7, 3.6.9 and 3.5.28;
            # with this switch it takes the hosts above for the list.
            settings["use_proxies"] = True
        if "ca" in self._server:
            # PostgreSQL's user may be unable to read the original.
            copy = os.path.join(self._base, "ca.pem")
            if not os.path.exists(copy):
                shutil.copy(self._server["ca"], copy)
                os.chmod(copy, 0o644)
            settings.update(protocol="https", cacert=copy)
        return settings

    def stranger(self, name, user):
        """A node of this cluster that its nodes are not waited for."""
        return Node(self._base, self.scope, name, self._etcd3(user), self._ttl)

    def bootstrap(self):
        """Starts all nodes; the first that is ready leads, and the others copy it."""
        for node in self.nodes:
            node.start()
        leader = wait("there is a leader", self.leader, 90)
        wait("the leader takes writes", lambda: leader.sql("select pg_is_in_recovery()") == [(False,)], 30)
        self.wait_for_replicas()
        leader.sql("create table rows (id serial primary key, what text)")
        return leader

    def kill(self):
        for node in self.nodes:
            node.kill()

    def keys(self):
        """The pairs of this cluster in the store."""
        return self._etcdctl.pairs(f"/service/{self.scope}/")

    def patronictl(self, *args):
        settings = self.nodes[0].config
        done = subprocess.run(["/usr/bin/patronictl", "-c", settings, *args], capture_output=True, text=True, timeout=60,
                              env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": self._base})
        check(done.returncode == 0, f"patronictl {' '.join(args)}: {done.stdout} {done.stderr}")
        return done.stdout

    def leader(self):
        """The node that leads by its own account, or None."""
        for node in self.nodes:
            if node.runs():
                with contextlib.suppress(*NOT_YET):
                    if node.ask("/leader")["state"] == "running":
                        return node
        return None

    def present_leader(self):
        """The node that leads. It may take a moment to know so again, after an error about the store."""
        return wait("there is a leader", self.leader, 30)

    def timeline(self):
        return self.present_leader().ask("/leader")["timeline"]

    def wait_for_replicas(self):
        """Until every node that runs, but the leader, streams from it."""
        def all_stream():
            leader = self.present_leader()
            names = {name for (name,) in leader.sql(
                "select application_name from pg_stat_replication where state = 'streaming'")}
            return names == {node.name for node in self.nodes if node.runs() and node is not leader}
        wait("every replica streams", all_stream, 60)

    def rows(self, node):
        return node.sql("select id, what from rows order by id")

    def write(self, what):
        self.present_leader().sql("insert into rows (what) values (%s)", what)

    def write_and_replicate(self, what):
        """Writes a row at the leader, and waits until every node that runs has all the rows."""
        self.write(what)
        leader = self.present_leader()
        rows = self.rows(leader)
        check(rows[-1][1] == what, f"the last row is {rows[-1]}")
        for node in self.nodes:
            if node.runs():
                wait(f"the rows are at {node.name}", lambda: self.rows(node) == rows, 30)
                check(node.sql("select pg_is_in_recovery()") == [(node is not leader,)], f"the role of {node.name}")

    def write_for(self, secs):
        """Writes a row twice a second; each has to succeed at once, at the same primary."""
        primary = self.present_leader()
        end = time.monotonic() + secs
        while time.monotonic() < end:
            primary.sql("insert into rows (what) values ('without a server')")
            time.sleep(0.5)

    def tell_logs(self):
        for node in self.nodes:
            print(f"# the end of the log of {node.name}:", flush=True)
            for line in node.log().splitlines()[-25:]:
                print("#   " + line, flush=True)
