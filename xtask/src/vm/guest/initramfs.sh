#!/bin/busybox sh
# The first process of every guest: loads what the disks need, mounts them, and hands over.
# With `postern.tree` on the command line a tar on the third disk is unpacked over the root and its /postern/init runs
# instead of systemd.
busybox mkdir -p /proc /sys /dev /new
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    [ -e "$module" ] && busybox insmod "$module"
done
root=/dev/vda
for word in $(busybox cat /proc/cmdline); do
    case "$word" in
    postern.probe) echo "postern-probe: booted" >/dev/console; busybox poweroff -f ;;
    postern.root=*) root=${word#postern.root=} ;;
    postern.tree) tree=yes ;;
    esac
done
tries=0
while [ ! -b "$root" ] && [ $tries -lt 100 ]; do
    busybox sleep 0.1
    tries=$((tries + 1))
done
busybox mount -t ext4 "$root" /new || { echo "postern-guest: no root on $root" >/dev/console; busybox poweroff -f; }
if [ -n "$tree" ]; then
    busybox mount -t ext4 -o ro /dev/vdb /new/usr/lib/modules
    busybox tar -x -f /dev/vdc -C /new
    next=/postern/init
else
    next=/sbin/init
fi
busybox mount --move /proc /new/proc
busybox mount --move /sys /new/sys
busybox mount --move /dev /new/dev
exec busybox switch_root /new "$next"
