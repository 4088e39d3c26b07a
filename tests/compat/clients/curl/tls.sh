# shellcheck shell=sh disable=SC2317
# TLS by curl's own library.
. ./lib.sh

# exit_of CURL'S OPTIONS...: curl's exit code for a call
exit_of() {
    code=0
    curl -s --max-time "$PATIENCE" -o "$OUT" "$@" -d '{"key": "YQ=="}' "$URL/v3/kv/range" || code=$?
    echo "$code"
}

server_certificate() {
    call kv/put '{"key": "YQ==", "value": "MQ=="}' --cacert "$CA"
    call kv/range '{"key": "YQ=="}' --cacert "$CA"
    is pairs a=1 "$(pairs)"
    URL=$(echo "$URL" | sed s/127.0.0.1/localhost/)
    stream w watch '{"create_request": {"key": "YQ==", "start_revision": 1}}' --cacert "$CA"
    saw w "put a=1 @2"
    first=$CA
    server '{"tls": true}'
    is "another authority" 60 "$(exit_of --cacert "$first")"
    is "no authority" 60 "$(exit_of)"
    is "its own" 0 "$(exit_of --cacert "$CA")"
}
check "a server's certificate; a wrong authority is refused" server_certificate '{"tls": true}'

client_certificate() {
    is "with a certificate" 0 "$(exit_of --cacert "$CA" --cert "$CERT" --key "$KEY")"
    is answer 1 "$(q .header.revision)"
    [ "$(exit_of --cacert "$CA")" != 0 ] || fail "let in without a certificate"
    authority=$CA address=$URL
    server '{"tls": true}'
    URL=$address
    [ "$(exit_of --cacert "$authority" --cert "$CERT" --key "$KEY")" != 0 ] || fail "let in with a certificate of another authority"
}
check "a client's certificate" client_certificate '{"tls": true, "client_cert_auth": true}'

in_the_clear() {
    URL=$(echo "$URL" | sed s/https/http/)
    status=$(curl -s --max-time "$PATIENCE" -o /dev/null -w '%{http_code}' -d '{"key": "YQ=="}' "$URL/v3/kv/range") || :
    [ "$status" != 200 ] || fail "answered in the clear"
}
check "in the clear is refused" in_the_clear '{"tls": true}'
