#!/bin/bash
# Brings a machine to where `postern` and `postern-demo` can be called. Runs as root, any number of times.
#
#   provision.sh kernel KERNEL SUITE      installs that suite's kernel; the machine has to be restarted for it
#   provision.sh prebuilt KERNEL CHECKOUT takes /tmp/postern and, if it is there, /tmp/postern-demo
#   provision.sh build KERNEL CHECKOUT    installs a compiler, runs the checkout's own set-up, and builds both
#
# KERNEL is what the machine is called for: 6.1, 6.12, …
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

main() {
    [ $# = 3 ] || set -- usage
    case "$1" in
    kernel) kernel "$2" "$3" ;;
    prebuilt)
        is_running "$2"
        prebuilt "$3"
        ;;
    build)
        is_running "$2"
        build "$3"
        ;;
    *)
        echo "usage: provision.sh kernel KERNEL SUITE | prebuilt KERNEL CHECKOUT | build KERNEL CHECKOUT" >&2
        exit 2
        ;;
    esac
}

kernel() {
    local suite=$2 archive
    case "$(uname -r)" in
    "$1".*)
        echo "$(uname -r) is running already"
        return
        ;;
    esac
    archive=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
    echo "deb $archive $suite main" >/etc/apt/sources.list.d/postern-kernel.list
    apt-get update --quiet
    apt-get install --quiet --yes -t "$suite" linux-image-amd64
}

# A machine that is called for another kernel than it runs would show what it does not.
is_running() {
    case "$(uname -r)" in
    "$1".*) ;;
    *)
        echo "this is Linux $(uname -r), not $1: its suite has moved on, or the restart took another; see KERNELS in the Vagrantfile" >&2
        exit 1
        ;;
    esac
}

prebuilt() {
    install -m 755 /tmp/postern /usr/local/bin/postern
    if [ -f /tmp/postern-demo ]; then
        # The agent of the story.
        command -v curl >/dev/null || { apt-get update --quiet && apt-get install --quiet --yes curl; }
        demo /tmp/postern-demo
    fi
    policies "$1"
    finish
}

build() {
    # Debian keeps this compiler current for its browsers; a rustup that is there already comes first in PATH.
    export PATH="/root/.cargo/bin:$PATH"
    if ! cargo --version >/dev/null 2>&1; then
        apt-get update --quiet
        apt-get install --quiet --yes --no-install-recommends \
            cargo-web rustc-web rustfmt-web rust-web-clippy gcc libc6-dev
    fi
    cd "$1"
    cargo xtask setup
    cargo xtask build --release
    cargo build --package e2e --bin demo
    install -m 755 target/release/postern /usr/local/bin/postern
    demo target/debug/demo
    policies "$1"
    finish
}

# The story needs to know where the binary is, and root; and the Python that has the SDKs, where there is one.
demo() {
    install -D -m 755 "$1" /usr/local/lib/postern/demo
    cat >/usr/local/bin/postern-demo <<'DEMO'
#!/bin/sh
[ "$(id -u)" = 0 ] || exec sudo --preserve-env=NO_COLOR,POSTERN_TEST_SLOW "$0" "$@"
python=/opt/postern/venv/bin/python
[ ! -x "$python" ] || export POSTERN_E2E_PYTHON="$python"
exec /usr/local/lib/postern/demo --postern /usr/local/bin/postern
DEMO
    chmod 755 /usr/local/bin/postern-demo
}

policies() {
    install -d /etc/postern
    rm -rf /etc/postern/policies
    cp -r "$1/policies" /etc/postern/policies
}

# What was installed is tried at once: a machine that cannot run it should not look provisioned.
finish() {
    # The sandbox lays one over the home folder, and nothing in it may load a module.
    echo overlay >/etc/modules-load.d/postern.conf
    modprobe overlay
    echo "Linux $(uname -r)"
    postern --version
    postern doctor
    postern check /etc/postern/policies/locked-down
    # Not in a home folder, of which the sandbox would warn.
    (cd /srv && postern exec --policy /etc/postern/policies/locked-down -- true)
}

main "$@"
