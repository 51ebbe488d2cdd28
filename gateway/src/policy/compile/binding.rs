//! Which sandboxes are whose.
//!
//! It refuses to know rules.

use super::super::problems::Problems;
use super::super::resource::Raw;
use super::Folder;
use crate::policy::Binding;

impl Folder<'_> {
    /// Every binding, in the order written.
    pub(super) fn bindings(&self, problems: &mut Problems<'_>) -> Vec<Binding> {
        let mut bindings: Vec<Binding> = Vec::new();
        let mut places = Vec::new();
        let mut any = false;
        for document in self.documents {
            let Raw::Binding(raw) = document else {
                continue;
            };
            any = true;
            let gateway = raw.gateway.as_ref();
            let gateway = gateway.and_then(|name| self.gateway_named(name, problems));
            let (Some(gateway), Some(selector)) = (gateway, &raw.selector) else {
                continue;
            };
            let mut earlier = bindings.iter().zip(&places);
            if let Some((first, place)) =
                earlier.find(|(first, _)| first.selector.covers(&selector.value))
            {
                let at = problems.locate(*place);
                problems
                    .warning(
                        selector.place,
                        format!("SandboxBinding `{}` never counts", raw.name.value),
                    )
                    .help(format!(
                        "of the bindings that mean a sandbox the first counts, and `{}` at {at} means all of these ({})",
                        first.name, first.selector
                    ));
            }
            places.push(selector.place);
            bindings.push(Binding {
                name: raw.name.value.as_str().into(),
                gateway: gateway.name.value.as_str().into(),
                selector: selector.value.clone(),
            });
        }
        if any && !problems.failed() {
            self.warn_without_sandbox(&bindings, problems);
        }
        bindings
    }

    /// Where some gateways are bound to their sandboxes, the others have been forgotten.
    fn warn_without_sandbox(&self, bindings: &[Binding], problems: &mut Problems<'_>) {
        for (name, raw) in &self.gateways {
            if !bindings.iter().any(|binding| *binding.gateway == **name) {
                problems
                    .warning(
                        raw.name.place,
                        format!("no SandboxBinding names EgressGateway `{name}`"),
                    )
                    .help("it serves no sandbox but those that are started under it by name");
            }
        }
    }
}
