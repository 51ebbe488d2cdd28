#!/bin/sh
# Makes a Vagrant box of the guest's root file system; runs in it, before it was ever booted.
set -eu
useradd --create-home --shell /bin/bash vagrant
echo 'vagrant:vagrant' | chpasswd
install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
# The public half of a key that everybody has: Vagrant's convention. `vagrant up` replaces it.
install -m 600 -o vagrant -g vagrant /root/vagrant.pub /home/vagrant/.ssh/authorized_keys
rm /root/vagrant.pub
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/vagrant
chmod 440 /etc/sudoers.d/vagrant
# Of a machine on a private network that is thrown away; a name look-up of every client would only be waited for.
printf 'UseDNS no\nPasswordAuthentication no\n' >/etc/ssh/sshd_config.d/vagrant.conf
cat >/etc/systemd/network/80-dhcp.network <<'NETWORK'
[Match]
Type=ether

[Network]
DHCP=ipv4

[DHCPv4]
ClientIdentifier=mac
NETWORK
cat >/etc/systemd/system/ssh-keys.service <<'UNIT'
[Unit]
Description=Host keys of this machine alone
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
systemctl enable --quiet systemd-networkd ssh ssh-keys
systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service
