//! Where the running kernel keeps what the programs read of its own structures. Knows not how that is found out.

/// Where the running kernel has the fields that say who a task is, and lead to the path of its program: offsets in
/// bytes, which differ from kernel to kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskFields {
    /// One if the others are known.
    pub known: u32,
    /// `task_struct.group_leader`
    pub task_leader: u32,
    /// `task_struct.start_boottime`
    pub task_start: u32,
    /// `task_struct.self_exec_id`
    pub task_execs: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.comm`, a multiple of eight
    pub task_comm: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `cred.gid`
    pub cred_gid: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub set_cgroup: u32,
    /// `cgroup.kn`
    pub cgroup_node: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `file.f_path.mnt`
    pub file_mnt: u32,
    /// `file.f_path.dentry`
    pub file_dentry: u32,
    /// `dentry.d_parent`
    pub dentry_parent: u32,
    /// `dentry.d_name.name`
    pub dentry_name: u32,
    /// `vfsmount.mnt_root`
    pub vfsmount_root: u32,
    /// `mount.mnt`
    pub mount_mnt: u32,
    /// `mount.mnt_parent`
    pub mount_parent: u32,
    /// `mount.mnt_mountpoint`
    pub mount_point: u32,
}

impl TaskFields {
    /// On this kernel nothing is known of tasks.
    pub const UNKNOWN: Self = Self {
        known: 0,
        task_leader: 0,
        task_start: 0,
        task_execs: 0,
        task_pid: 0,
        task_tgid: 0,
        task_comm: 0,
        task_cred: 0,
        cred_uid: 0,
        cred_gid: 0,
        task_cgroups: 0,
        set_cgroup: 0,
        cgroup_node: 0,
        node_id: 0,
        task_mm: 0,
        mm_exe_file: 0,
        file_mnt: 0,
        file_dentry: 0,
        dentry_parent: 0,
        dentry_name: 0,
        vfsmount_root: 0,
        mount_mnt: 0,
        mount_parent: 0,
        mount_point: 0,
    };
}

/// Where the running kernel has the fields that lead from a socket to the cgroup that it was made in, and what
/// records say of it: offsets in bytes, which differ from kernel to kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFields {
    /// One if the first two offsets are known.
    pub family_known: u32,
    /// One if all are.
    pub cgroup_known: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.__sk_common.skc_family`
    pub sock_family: u32,
    /// `sock.sk_type`
    pub sock_type: u32,
    /// `sock.sk_protocol`
    pub sock_protocol: u32,
    /// `sock.__sk_common.skc_dport`
    pub sock_port: u32,
    /// `sock.__sk_common.skc_daddr`
    pub sock_v4: u32,
    /// `sock.__sk_common.skc_v6_daddr`
    pub sock_v6: u32,
    /// `sock.sk_cgrp_data.cgroup`
    pub sock_cgroup: u32,
    /// `cgroup.kn`
    pub cgroup_node: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `cgroup.self.parent`
    pub cgroup_parent: u32,
    /// `cgroup_subsys_state.cgroup`
    pub css_cgroup: u32,
}

impl SocketFields {
    /// On this kernel nothing is known of sockets.
    pub const UNKNOWN: Self = Self {
        family_known: 0,
        cgroup_known: 0,
        socket_sk: 0,
        sock_family: 0,
        sock_type: 0,
        sock_protocol: 0,
        sock_port: 0,
        sock_v4: 0,
        sock_v6: 0,
        sock_cgroup: 0,
        cgroup_node: 0,
        node_id: 0,
        cgroup_parent: 0,
        css_cgroup: 0,
    };
}
