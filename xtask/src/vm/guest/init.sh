#!/bin/bash
# Stands in for systemd in a guest that lives for one command: mounts what a Debian has mounted, runs /postern/job,
# writes its results as a tar to the fourth disk, and switches the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 USER=root LOGNAME=root
mount -t tmpfs -o mode=755,nosuid,nodev,noexec run /run
mkdir -p /run/lock /run/user/0 /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev shm /dev/shm
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
hostname postern-guest
ip link set lo up
# What a machine that has been up for a while has loaded: inside a sandbox nothing can be loaded any more.
for module in overlay veth sch_netem; do modprobe -q $module; done
echo "postern-guest: Linux $(uname -r), LSM $(cat /sys/kernel/security/lsm), up $(cut -d' ' -f1 /proc/uptime) s"
mkdir -p /postern/results
cd /root
if [ -e /postern/interactive ]; then
    stty -F /dev/ttyS0 sane 2>/dev/null
    setsid -c /postern/job </dev/ttyS0 >/dev/ttyS0 2>&1
else
    /postern/job </dev/null
fi
echo $? >/postern/results/rc
uname -r >/postern/results/uname
cat /sys/kernel/security/lsm >/postern/results/lsm
[ -b /dev/vdd ] && tar -c -f /dev/vdd -C /postern/results .
sync
echo "postern-guest: done"
echo o >/proc/sysrq-trigger
sleep 60
