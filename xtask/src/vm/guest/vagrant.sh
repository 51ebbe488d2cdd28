#!/bin/bash
# The whole way of vagrant/README.md's third row, with daemons of its own. Runs on the host in a network and a mount
# namespace of its own: WORK and MACHINE are its arguments; what Vagrant needs to know is in the environment.
set -eu
work=$1 machine=$2
mkdir -p "$work"/{etc,lib,log,cache,pool,home,dot} /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs /run/libvirt
# The machine's own services would take the numbers of this namespace's processes for their own.
[ ! -d /run/dbus ] || mount -t tmpfs tmpfs /run/dbus
cp -r /etc/libvirt/. "$work/etc"
# As root, and without a look at what the processor can do on every call, which takes seconds where /dev/kvm is root's.
cat >"$work/etc/qemu.conf" <<'CONF'
user = "root"
group = "root"
security_driver = "none"
CONF
mount --bind "$work/etc" /etc/libvirt
mount --bind "$work/lib" /var/lib/libvirt
mount --bind "$work/log" /var/log/libvirt
mount --bind "$work/cache" /var/cache/libvirt
mkdir -p /var/lib/libvirt/{qemu,network,dnsmasq,images,boot}

virtlogd --pid-file "$work/virtlogd.pid" >"$work/virtlogd.out" 2>&1 &
daemons=$!
libvirtd --pid-file "$work/libvirtd.pid" >"$work/libvirtd.out" 2>&1 &
daemons="$daemons $!"
finish() {
    status=$?
    vagrant destroy --force >/dev/null 2>&1 || true
    # The processes that this script started, by their numbers; dnsmasq is libvirtd's and outlives it.
    for file in /run/libvirt/network/*.pid; do
        [ -e "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
    done
    kill $daemons 2>/dev/null || true
    # They write to their folder until they end.
    wait $daemons 2>/dev/null || true
    exit $status
}
trap finish EXIT

for _ in $(seq 100); do
    virsh --quiet --connect qemu:///system list >/dev/null 2>&1 && break
    sleep 0.2
done
virsh --quiet --connect qemu:///system pool-define-as default dir --target "$work/pool"
virsh --quiet --connect qemu:///system pool-start default

export VAGRANT_HOME="$work/home" VAGRANT_DOTFILE_PATH="$work/dot" VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_NO_COLOR=1
timeout --foreground 3600 vagrant up "$machine" --provider=libvirt
status=0
vagrant ssh "$machine" -c 'exit 7' || status=$?
[ $status = 7 ] || { echo "vagrant ssh gave status $status for 7" >&2; exit 1; }
# Emulated, a client takes ten times as long as the story expects.
vagrant ssh "$machine" -c 'uname -r && sudo postern doctor && postern check /etc/postern/policies/anthropic &&
    cd /srv && sudo postern exec --policy /etc/postern/policies/locked-down -- true &&
    NO_COLOR=1 POSTERN_TEST_SLOW=10 postern-demo'
