#!/bin/sh
# A cluster of three on this machine, for a first look: starts the members, shows what they log, and stops them on Ctrl-C.
#
#   packaging/cluster.sh SERVER DIR [FLAG...]
#
# SERVER is the program, DIR keeps the data of n1, n2 and n3: started again, they go on. FLAGs are added to each member's.
# The ports are those of etcd's own example: 2379, 22379, 32379 for clients, 2380, 22380, 32380 for members.
# Anything that takes etcd's flags can be SERVER.
set -eu

[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
server=$1
dir=$2
shift 2

initial=n1=http://127.0.0.1:2380,n2=http://127.0.0.1:22380,n3=http://127.0.0.1:32380
endpoints=127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379
pids=

mkdir -p "$dir"
chmod 700 "$dir"

# show NAME: what the member logs, with its name in front; notes when it serves, and when it has ended.
show() {
  while IFS= read -r line; do
    printf '%s | %s\n' "$1" "$line"
    case $line in *"ready to serve client requests"*) : > "$dir/$1.ready" ;; esac
  done
  : > "$dir/$1.ended"
}

# member NAME CLIENT_PORT PEER_PORT FLAG...
member() {
  name=$1 client=http://127.0.0.1:$2 peer=http://127.0.0.1:$3
  shift 3
  rm -f "$dir/$name.ready" "$dir/$name.ended" "$dir/$name.pipe"
  mkfifo "$dir/$name.pipe"
  show "$name" < "$dir/$name.pipe" &
  setsid "$server" --name "$name" --data-dir "$dir/$name" \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "$initial" --initial-cluster-token up --initial-cluster-state new \
    --log-format console "$@" > "$dir/$name.pipe" 2>&1 &
  pids="$pids $!"
}

# Members have sessions of their own, so that Ctrl-C reaches them once, from here. What they log last is shown.
stop() {
  trap "" INT TERM HUP
  # shellcheck disable=SC2086 # one argument for each
  kill $pids 2>/dev/null || true
}
trap stop INT TERM HUP

member n1 2379 2380 "$@"
member n2 22379 22380 "$@"
member n3 32379 32380 "$@"

serves() { [ -e "$dir/n1.ready" ] && [ -e "$dir/n2.ready" ] && [ -e "$dir/n3.ready" ]; }
ended() { [ -e "$dir/n1.ended" ] || [ -e "$dir/n2.ended" ] || [ -e "$dir/n3.ended" ]; }
until serves || ended; do
  sleep 0.2 || true # Ctrl-C ends it early
done
if serves; then
  cat <<END

Three members serve on $endpoints. In another terminal:

  export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=$endpoints
  etcdctl endpoint status --write-out=table
  etcdctl put greeting hello

Ctrl-C stops them; the data stays in $dir.

END
fi

status=0
for pid in $pids; do
  # A signal ends the first wait, the member only later.
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" || status=$?; done
done
wait
rm -f "$dir"/n?.ready "$dir"/n?.ended "$dir"/n?.pipe
[ $status -le 128 ] || status=0
exit $status
