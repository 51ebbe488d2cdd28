//! What the kernel refuses, told of the sandbox that tried it. It refuses to know what was decided, and why.

use crate::kernel::{Refusal, RefusalReason, SandboxId};
use crate::live::Live;
use crate::outcome::Stage;
use crate::telemetry::{DenialRecord, Who};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::mpsc;

/// Somebody in a sandbox tried to connect from a network namespace that has no listener.
#[derive(Clone, Copy, Debug)]
pub struct Stray {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The namespace's cookie.
    pub netns: u64,
    /// Who tried.
    pub pid: u32,
}

/// Who is behind a kernel event: the sandboxes by number.
#[derive(Default)]
pub(super) struct Watched {
    sandboxes: RwLock<HashMap<SandboxId, Arc<Live>>>,
}

impl Watched {
    pub(super) fn add(&self, id: SandboxId, live: &Arc<Live>) {
        self.sandboxes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::clone(live));
    }

    /// Unless the number is another sandbox's by now.
    pub(super) fn remove(&self, id: SandboxId, live: &Arc<Live>) {
        let mut sandboxes = self
            .sandboxes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if sandboxes
            .get(&id)
            .is_some_and(|known| Arc::ptr_eq(known, live))
        {
            sandboxes.remove(&id);
        }
    }

    /// Is it on record now? It is not if nobody knows the sandbox.
    pub(super) fn record(&self, refusal: &Refusal, strays: &mpsc::Sender<Stray>) -> bool {
        let sandboxes = self
            .sandboxes
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(live) = sandboxes.get(&refusal.origin.sandbox) else {
            tracing::debug!(?refusal, "denied in a sandbox that is not there");
            return false;
        };
        if refusal.reason == RefusalReason::NoListenerInNamespace {
            let stray = Stray {
                sandbox: refusal.origin.sandbox,
                netns: refusal.origin.netns,
                pid: refusal.origin.pid,
            };
            if let Err(error) = strays.try_send(stray) {
                tracing::debug!(%error, "a namespace without listener is not looked after");
            }
        }
        let view = live.view();
        let gateway = Arc::clone(&view.gateway.name);
        let label = Arc::clone(&live.label);
        view.telemetry.denied(&DenialRecord {
            who: Who::new(gateway, label, view.generation, &refusal.origin),
            reason: refusal.reason.into(),
            stage: Stage::Kernel,
            host: None,
            detail: Some(refusal.detail()),
        });
        true
    }
}
