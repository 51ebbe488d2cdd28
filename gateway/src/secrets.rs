//! Where credentials come from: `Secret` documents of the policy and a folder of `NAME/KEY` files, both
//! followed while they change. Hands them out only as [`SecretValue`], which no formatter can print.

pub mod edit;
pub mod folder;
mod follow;
mod snapshot;
mod store;
mod value;

pub use folder::Problem;
pub use follow::follow;
pub use snapshot::Snapshot;
pub use store::{Follower, Secrets};
pub use value::SecretValue;

use crate::policy::SecretRef;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The values of documents.
type Documents = BTreeMap<SecretRef, Arc<SecretValue>>;
