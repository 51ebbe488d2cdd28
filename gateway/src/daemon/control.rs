//! Answers of the admin socket.

use super::{AttachError, Daemon, Known, Origin};
use crate::admin::{
    AttachRequest, Control, Failure, FailureKind, GatewayInfo, NamespaceInfo, Peer, SandboxInfo,
    Status, Which,
};
use crate::app::AppError;
use crate::privileges::Layer;
use crate::sandbox::locate::{Hierarchy, Located, is_within};
use gateway_common::{Listeners, refusal};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Locate(error) => error.into(),
            AttachError::App(error @ AppError::NoGateway { .. }) => {
                Self::new(FailureKind::NotFound, error.to_string())
            }
            other => Self::new(FailureKind::Failed, other.to_string()),
        }
    }
}

impl Control for Daemon {
    async fn attach(&self, request: AttachRequest, by: &Peer) -> Result<SandboxInfo, Failure> {
        self.forget_gone().await;
        let mut sandboxes = self.sandboxes.lock().await;
        by.check(self)?;
        let others = sandboxes.keys().map(String::as_str);
        let located = request.locate(&self.settings.hierarchy, others)?;
        let label = request.label.unwrap_or_else(|| located.path.clone());
        let origin = Origin {
            text: request.origin,
            binding: None,
        };
        let path = located.path.clone();
        self.attach_among(&mut sandboxes, located, &request.gateway, &label, origin)
            .await?;
        let known = sandboxes.get(&path);
        known
            .map(|known| self.describe(known))
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format!("{path} is gone already")))
    }

    async fn detach(&self, which: Which, by: &Peer) -> Result<SandboxInfo, Failure> {
        let mut sandboxes = self.sandboxes.lock().await;
        by.check(self)?;
        let mut all = sandboxes.values().map(|known| self.describe(known));
        let found = all.find(|info| which.is(info));
        drop(all);
        let Some(info) = found else {
            let named = match which {
                Which::Cgroup(path) => path,
                Which::Id(id) => format!("sandbox {id}"),
            };
            return Err(Failure::new(
                FailureKind::NotFound,
                format!("{named} is not attached; `postern status` shows what is"),
            ));
        };
        self.detach_among(&mut sandboxes, &info.cgroup)?;
        Ok(info)
    }

    async fn detach_all(&self, by: &Peer) -> Result<Vec<SandboxInfo>, Failure> {
        let all: Vec<SandboxInfo> = {
            let sandboxes = self.sandboxes.lock().await;
            by.check(self)?;
            sandboxes
                .values()
                .map(|known| self.describe(known))
                .collect()
        };
        for info in &all {
            Daemon::detach(self, &info.cgroup).await?;
        }
        let failed = |error: std::io::Error| Failure::new(FailureKind::Failed, error.to_string());
        // What was attached meanwhile stays.
        let sandboxes = self.sandboxes.lock().await;
        for cgroup in self.left_shut(&sandboxes).map_err(failed)? {
            self.forget(cgroup).map_err(failed)?;
        }
        Ok(all)
    }

    async fn status(&self) -> Status {
        let sandboxes = self.sandboxes.lock().await;
        let reloads = self.app.reloads().clone();
        let uptime = self.started.elapsed().unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: seconds(self.started),
            uptime: uptime.as_secs(),
            policy: self.settings.policy.display().to_string(),
            generation: self.app.generation(),
            reload_failures: reloads.failed,
            reload_failed_at: reloads.failure.as_ref().map(|failure| seconds(failure.at)),
            reload_error: reloads.failure.map(|failure| failure.message),
            draining: self.app.is_draining(),
            denials_not_recorded: self.app.denials_not_recorded(),
            gateways: self.app.gateways().into_iter().map(gateway).collect(),
            sandboxes: sandboxes
                .values()
                .map(|known| self.describe(known))
                .collect(),
            protections: self.protections(),
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.app.subscribe()
    }

    fn is_sandboxed(&self, cgroup: &Located) -> io::Result<bool> {
        let is_attached = {
            let paths = self.paths.read().unwrap_or_else(PoisonError::into_inner);
            paths.iter().any(|path| is_within(&cgroup.path, path))
        };
        // What is pinned is known by number alone.
        Ok(is_attached || is_any_of(&self.app.pinned()?, cgroup, &self.settings.hierarchy)?)
    }
}

impl Daemon {
    fn describe(&self, known: &Known) -> SandboxInfo {
        let attached = &known.attached;
        let view = attached.live().view();
        let counters = self.app.counters(attached.id()).unwrap_or_default();
        let mut refused = BTreeMap::new();
        for (number, count) in (0_u8..).zip(counters.refused) {
            if count > 0 {
                refused.insert(name(number), count);
            }
        }
        SandboxInfo {
            id: attached.id().get(),
            cgroup: known.located.path.clone(),
            cgroup_id: attached.cgroup(),
            gateway: attached.gateway(),
            label: attached.live().label.to_string(),
            origin: known.origin.clone(),
            since: seconds(attached.since()),
            open: attached.is_active(),
            generation: view.generation,
            connections: u64::try_from(attached.live().open()).unwrap_or(u64::MAX),
            redirected: counters.redirected,
            refused,
            namespaces: self
                .app
                .listeners(attached.id())
                .into_iter()
                .map(namespace)
                .collect(),
        }
    }

    fn protections(&self) -> Vec<Layer> {
        let kernel = self.app.protections();
        let mut layers = vec![
            Layer {
                name: "cgroup programs".to_owned(),
                active: true,
                detail: kernel.programs.join(", "),
            },
            Layer {
                name: "lsm".to_owned(),
                active: kernel.lsm,
                detail: kernel
                    .lsm_absent_because
                    .unwrap_or_else(|| "socket families by lsm_cgroup/socket_create, sockets from outside by lsm_cgroup/file_receive, multicast groups by lsm_cgroup/socket_setsockopt"
                        .to_owned()),
            },
            Layer {
                name: "pins".to_owned(),
                active: kernel.pinned,
                detail: "links and maps outlive the daemon: sandboxes stay shut without it"
                    .to_owned(),
            },
        ];
        layers.extend(self.settings.layers.iter().cloned());
        layers
    }
}

/// Has this cgroup, or one around it, one of these ids?
fn is_any_of(ids: &[u64], cgroup: &Located, hierarchy: &Hierarchy) -> io::Result<bool> {
    if ids.is_empty() {
        return Ok(false);
    }
    let around = cgroup.directory.ancestors();
    for folder in around.take_while(|folder| folder.starts_with(hierarchy.mount())) {
        if ids.contains(&folder.metadata()?.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn gateway((name, problems): (String, Vec<String>)) -> GatewayInfo {
    GatewayInfo { name, problems }
}

fn namespace((cookie, at): (u64, Listeners)) -> NamespaceInfo {
    let pair = |tcp, dns| (tcp != 0).then_some((tcp, dns));
    NamespaceInfo {
        cookie,
        private: at.flags & Listeners::PRIVATE != 0,
        v4: pair(at.tcp4, at.dns4),
        v6: pair(at.tcp6, at.dns6),
    }
}

/// The reason as records name it.
fn name(number: u8) -> String {
    let reason = crate::kernel::RefusalReason::from_number(number);
    reason.map_or_else(
        || format!("reason {number}"),
        |reason| crate::outcome::DenyReason::from(reason).as_str().to_owned(),
    )
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The numbers of reasons fit the counters.
const _: () = assert!(refusal::SLOTS <= u8::MAX as usize);
