//! A policy file of any text: compiling never panics, and says what is wrong whenever there is no policy. Knows no field.

#![no_main]

use gateway::policy::{SourceFile, compile};
use libfuzzer_sys::fuzz_target;
use zeroize::Zeroizing;

fuzz_target!(|text: &str| {
    let file = SourceFile {
        name: "policy.yaml".to_owned(),
        text: Zeroizing::new(text.to_owned()),
    };
    let compiled = compile(&[file]);
    assert!(compiled.policy.is_some() || !compiled.diagnostics.is_empty());
});
