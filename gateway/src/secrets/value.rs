//! One secret value in memory: wiped when dropped, printed by nothing.
//!
//! It refuses to know where the value came from, what it is called and what it is for. It has no
//! `Clone`, no `Display` and no serialisation on purpose: whoever needs the value twice shares it in
//! an `Arc`, and whoever needs the bytes says [`SecretValue::expose`], a word that can be searched for.

use std::fmt;

use zeroize::Zeroizing;

/// The bytes of a secret. The heap copy is overwritten with zeroes on drop.
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes ownership of `bytes`; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Whatever they are copied into is the caller's to wipe.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
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
    fn debug_shows_nothing_of_the_value() {
        let secret = SecretValue::new(b"sk-ant-123".to_vec());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose(), b"sk-ant-123");
    }
}
