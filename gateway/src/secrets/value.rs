//! One secret value in memory: wiped when dropped, printed by nothing.
//!
//! It refuses to know where the value came from, what it is called and what it is for. It has no
//! `Clone`, no `Display` and no serialisation on purpose: whoever needs the value twice shares it in
//! an `Arc`, and whoever needs the bytes says [`SecretValue::expose`], a word that can be searched for.

use std::fmt;
use std::sync::Once;

use zeroize::Zeroizing;

use crate::sys::LockedBytes;

/// The bytes of a secret, overwritten with zeroes on drop.
pub struct SecretValue(Memory);

enum Memory {
    Heap(Zeroizing<Vec<u8>>),
    Locked(LockedBytes),
}

impl SecretValue {
    /// Takes ownership of `bytes`; the caller keeps no copy. For values that live as long as a request:
    /// they stay on the heap.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Memory::Heap(Zeroizing::new(bytes)))
    }

    /// A copy for values that are kept: in pages of their own that are not swapped, dumped or inherited.
    /// Where the kernel does not allow that (RLIMIT_MEMLOCK), once said, the rest still holds.
    #[must_use]
    pub fn kept(bytes: &[u8]) -> Self {
        match LockedBytes::zeroed(bytes.len()) {
            Ok(mut pages) => {
                if let Some(error) = pages.unlocked() {
                    warn_once(error);
                }
                pages.copy_from_slice(bytes);
                Self(Memory::Locked(pages))
            }
            Err(error) => {
                if !bytes.is_empty() {
                    warn_once(&error);
                }
                Self::new(bytes.to_vec())
            }
        }
    }

    /// The bytes themselves. Whatever they are copied into is the caller's to wipe.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        match &self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Locked(bytes) => bytes,
        }
    }

    /// Is it the same value? For telling changes; who compares with what a stranger sent needs constant time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

fn warn_once(error: &std::io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            %error,
            "secrets cannot all be kept from swap; raise the limit of locked memory (ulimit -l, LimitMEMLOCK=) or turn swap off"
        );
    });
}

/// Prints `[redacted]`, so that a struct which holds a secret may derive `Debug` safely.
impl fmt::Debug for SecretValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretValue;

    #[test]
    fn debug_shows_nothing_of_the_value_wherever_it_is() {
        let secret = SecretValue::new(b"sk-ant-123".to_vec());
        let kept = SecretValue::kept(secret.expose());
        for secret in [&secret, &kept] {
            assert_eq!(format!("{secret:?}"), "[redacted]");
            assert_eq!(secret.expose(), b"sk-ant-123");
        }
        assert!(secret.is_same(&kept));
        assert!(!kept.is_same(&SecretValue::kept(b"")));
        assert_eq!(SecretValue::kept(b"").expose(), b"");
    }
}
