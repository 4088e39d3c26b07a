# shellcheck shell=sh disable=SC2317
# Users, with the token in the header.
. ./lib.sh

# root ("r"), and ann ("a") who may read and write below a/ and read b
with_users() {
    call auth/user/add '{"name": "root", "password": "r"}'
    call auth/user/grant '{"user": "root", "role": "root"}'
    call auth/user/add '{"name": "ann", "password": "a"}'
    call auth/role/add '{"name": "reader"}'
    call auth/role/grant '{"name": "reader", "perm": {"permType": "READWRITE", "key": "YS8=", "range_end": "YTA="}}'
    call auth/role/grant '{"name": "reader", "perm": {"key": "Yg=="}}'
    call auth/user/grant '{"user": "ann", "role": "reader"}'
    put a/x 1
    put b 2
    put c 3
    call auth/enable '{}'
}

# login NAME PASSWORD: sets TOKEN
login() {
    call auth/authenticate "{\"name\": \"$1\", \"password\": \"$2\"}"
    TOKEN=$(q .token)
}

# as_user FUNCTION ARGUMENTS... behind which the header goes
as_user() { "$@" -H "Authorization: $TOKEN"; }

users() {
    call auth/user/add '{"name": "ann", "password": "a"}'
    call auth/user/add '{"name": "bob", "options": {"no_password": true}}'
    refused 400 9 "etcdserver: user name already exists" auth/user/add '{"name": "ann", "password": "a"}'
    refused 400 3 "etcdserver: user name is empty" auth/user/add '{"password": "a"}'
    call auth/user/list '{}'
    is users "ann bob" "$(q '.users | join(" ")')"
    call auth/role/add '{"name": "r1"}'
    refused 400 9 "etcdserver: role name already exists" auth/role/add '{"name": "r1"}'
    call auth/role/grant '{"name": "r1", "perm": {"permType": "WRITE", "key": "aw==", "range_end": "bQ=="}}'
    call auth/role/get '{"role": "r1"}'
    is permission "WRITE aw== bQ==" "$(q '.perm[0] | "\(.permType) \(.key) \(.range_end)"')"
    call auth/user/grant '{"user": "ann", "role": "r1"}'
    call auth/user/get '{"name": "ann"}'
    is roles r1 "$(q '.roles | join(" ")')"
    refused 400 9 "etcdserver: role name not found" auth/user/grant '{"user": "ann", "role": "r2"}'
    call auth/role/revoke '{"role": "r1", "key": "aw==", "range_end": "bQ=="}'
    call auth/role/delete '{"role": "r1"}'
    call auth/role/list '{}'
    is "no roles" null "$(q .roles)"
    call auth/user/changepw '{"name": "ann", "password": "b"}'
    call auth/user/delete '{"name": "bob"}'
    refused 400 9 "etcdserver: user name not found" auth/user/get '{"name": "bob"}'
    refused 400 9 "etcdserver: root user does not exist" auth/enable '{}'
}
check "users and roles" users

permissions() {
    with_users
    refused 400 3 "etcdserver: user name is empty" kv/range '{"key": "Yg=="}'
    refused 400 3 "etcdserver: authentication failed, invalid user ID or password" auth/authenticate '{"name": "ann", "password": "b"}'
    refused 400 3 "etcdserver: authentication failed, invalid user ID or password" auth/authenticate '{"name": "eve", "password": "a"}'
    login ann a
    as_user call kv/put '{"key": "YS95", "value": "Mg=="}'
    as_user call kv/range '{"key": "YS8=", "range_end": "YTA="}'
    is "below a/" "a/x=1 a/y=2" "$(pairs)"
    as_user call kv/range '{"key": "Yg=="}'
    is b b=2 "$(pairs)"
    as_user refused 403 7 "etcdserver: permission denied" kv/put '{"key": "Yg=="}'
    as_user refused 403 7 "etcdserver: permission denied" kv/range '{"key": "Yw=="}'
    as_user refused 403 7 "etcdserver: permission denied" auth/user/add '{"name": "eve", "password": "e"}'
    as_user stream w watch '{"create_request": {"key": "Yw=="}}'
    line w 1
    is "a watch" "true rpc error: code = PermissionDenied desc = etcdserver: permission denied" \
        "$(q '.result | "\(.canceled) \(.cancel_reason)"')"
    login root r
    as_user call kv/range "$ALL}"
    is root "a/x=1 a/y=2 b=2 c=3" "$(pairs)"
    as_user call auth/disable '{}'
    all
    is disabled 4 "$(q .count)"
    refused 400 9 "etcdserver: authentication is not enabled" auth/authenticate '{"name": "ann", "password": "a"}'
}
check "permissions, wrong passwords, disable" permissions

tokens() {
    with_users
    login ann a
    is "a token" 200 "$STATUS"
    for wrong in bogus "$TOKEN.1"; do
        refused 401 16 "etcdserver: invalid auth token" kv/range '{"key": "Yg=="}' -H "Authorization: $wrong"
    done
    # It ends after four seconds without use; a call would keep it, so ask rarely.
    ended() {
        sleep 5.5
        as_user post kv/range '{"key": "Yg=="}'
        [ "$STATUS" = 401 ]
    }
    until_so "the end of a token" ended
    is text "etcdserver: invalid auth token" "$(q .message)"
    login ann a
    as_user call kv/range '{"key": "Yg=="}'
}
check "tokens: wrong, expired, and the next" tokens '{"flags": ["--auth-token-ttl=4"]}'
