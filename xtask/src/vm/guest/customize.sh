#!/bin/sh
# Finishes the guest's root file system: $1 is its root.
set -eu
root=$1
mkdir -p "$root/usr/lib/modules" "$root/postern"
# The guest has no network: sources of packages would only be waited for.
rm -rf "$root/etc/apt/sources.list.d"/* "$root/etc/apt/sources.list" "$root/var/lib/apt/lists" "$root/var/cache/apt"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
rm -f "$root/etc/ssh/ssh_host_"*
rm -f "$root/var/log/"*.log "$root/var/log/apt/"*
: >"$root/etc/machine-id"
echo postern-guest >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 postern-guest\n::1 localhost\n' >"$root/etc/hosts"
# Nobody answers there (RFC 5737), as nobody answers anywhere.
echo 'nameserver 192.0.2.53' >"$root/etc/resolv.conf"
echo '/dev/vda1 / ext4 defaults 0 1' >"$root/etc/fstab"
