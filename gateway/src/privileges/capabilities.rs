//! Capabilities: all sets, the bounding one included, down to those that are kept. Which those are and why
//! is the caller's.

use super::Taken;
use caps::{CapSet, Capability, CapsHashSet};

/// Gives up everything else. What this process never had is not gained.
pub(super) fn keep(kept: &[Capability]) -> Taken {
    match reduce(kept) {
        Ok(kept) => {
            let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
            names.sort_unstable();
            Ok(if names.is_empty() {
                "none".to_owned()
            } else {
                format!("{} alone", names.join(", "))
            })
        }
        Err(error) => Err(error.to_string()),
    }
}

fn reduce(kept: &[Capability]) -> Result<CapsHashSet, caps::errors::CapsError> {
    let wanted: CapsHashSet = kept.iter().copied().collect();
    let permitted = caps::read(None, CapSet::Permitted)?;
    let left: CapsHashSet = permitted.intersection(&wanted).copied().collect();
    // From the bounding set first: that needs CAP_SETPCAP, which goes with the rest.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding)?;
        for capability in bounding.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)?;
    Ok(left)
}
