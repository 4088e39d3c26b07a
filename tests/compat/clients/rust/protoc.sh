# Sourced by preparations: protoc with its standard imports is there, or the program ends with the code that says that
# this machine can't. $crate is what is to be built with it.
# protoc comes without its standard imports where packages that are only recommended are left out.
has_protoc() {
    printf 'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n' >"$KVIST_WORK/probe.proto"
    protoc -I"$KVIST_WORK" --descriptor_set_out=/dev/null "$KVIST_WORK/probe.proto" >/dev/null 2>&1 && return
    protoc -I"$KVIST_WORK" -I/usr/include --descriptor_set_out=/dev/null "$KVIST_WORK/probe.proto" >/dev/null 2>&1
}
if ! has_protoc; then
    sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    command -v apt-get >/dev/null || { echo "there is no protoc to build $crate with, and no apt-get"; exit 77; }
    [ -z "$sudo" ] || command -v sudo >/dev/null ||
        { echo "there is no protoc; as root: apt-get install protobuf-compiler libprotobuf-dev"; exit 77; }
    $sudo apt-get update
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        protobuf-compiler libprotobuf-dev
fi
