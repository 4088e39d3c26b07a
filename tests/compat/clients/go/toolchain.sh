# Read by the `prepare` scripts of the suites that are written in Go.

# need_go sees to it that there is a Go that can build them, or ends with 77. From 1.21 on, an older Go gets the one that
# go.mod asks for by itself.
need_go() {
    export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}"
    if ! command -v go >/dev/null; then
        candidate=$(apt-cache policy golang-go 2>/dev/null | sed -n 's/.*Candidate: .*:1\.\([0-9]*\).*/\1/p')
        if [ "${candidate:-0}" -lt 21 ]; then
            echo "there is no Go, and this system has no package of one that is new enough; get it from https://go.dev/dl"
            exit 77
        fi
        sudo=
        [ "$(id -u)" -eq 0 ] || sudo=sudo
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends golang-go
    fi
    # Outside of the module, whose demands an old Go can't fulfil.
    version=$(cd / && go env GOVERSION)
    minor=$(echo "$version" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    if [ "${minor:-0}" -lt 21 ]; then
        echo "$version is too old; get a newer one from https://go.dev/dl"
        exit 77
    fi
}

# build_suite builds the module in this folder.
build_suite() {
    go build -mod=readonly -buildvcs=false -trimpath -o "$KVIST_WORK/suite" .
}
