//! The trust directory against the real tools, where the machine has them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Command;

use super::*;

/// A self-signed certificate whose subject tries the canonical form: upper case, runs of spaces,
/// a non-ASCII letter, two string types.
fn ca() -> Option<String> {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-keyout", "/dev/null", "-days", "2", "-utf8"])
        .args([
            "-subj",
            "/C=CH/O=Some  ÖRG /CN=Postern CA  for Tests/emailAddress=A@B.example",
        ])
        .output()
        .ok()?;
    made.status
        .success()
        .then(|| String::from_utf8(made.stdout).unwrap())
}

fn openssl(arguments: &[&str]) -> String {
    let run = Command::new("openssl").args(arguments).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    String::from_utf8(run.stdout).unwrap().trim().to_owned()
}

fn built(ca: &str) -> (tempfile::TempDir, Built) {
    let directory = tempfile::tempdir().unwrap();
    let built = build(&directory.path().join("trust"), ca).unwrap();
    (directory, built)
}

#[test]
fn the_hash_is_openssls() {
    let Some(ca) = ca() else { return };
    let (directory, _) = built(&ca);
    let file = directory.path().join("trust/ca.pem");
    let hash = openssl(&["x509", "-noout", "-hash", "-in", file.to_str().unwrap()]);
    assert_eq!(subject_hash(&certificates(&ca)[0]), Some(hash));
}

#[test]
fn the_hash_is_openssls_for_every_public_root_of_this_machine() {
    let Ok(bundle) = fs::read_to_string(SYSTEM_BUNDLES[0]) else {
        return;
    };
    if ca().is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (number, certificate) in certificates(&bundle).iter().enumerate() {
        let file = directory.path().join(number.to_string());
        fs::write(&file, certificate).unwrap();
        let file = file.to_str().unwrap();
        let hash = openssl(&["x509", "-inform", "DER", "-noout", "-hash", "-in", file]);
        assert_eq!(subject_hash(certificate), Some(hash), "root {number}");
    }
}

#[test]
fn openssl_verifies_by_directory_and_by_bundle() {
    let Some(ca) = ca() else { return };
    let (directory, _) = built(&ca);
    let trust = directory.path().join("trust");
    let name = |path: &str| trust.join(path).to_str().unwrap().to_owned();
    let file = name(CA);
    openssl(&[
        "verify",
        "-no-CAfile",
        "-CApath",
        &name(CERTIFICATES),
        &file,
    ]);
    openssl(&["verify", "-no-CApath", "-CAfile", &name(BUNDLE), &file]);
    openssl(&[
        "verify",
        "-no-CApath",
        "-CAfile",
        &name("certs/ca-certificates.crt"),
        &file,
    ]);
}

#[test]
fn java_reads_the_store_with_every_certificate() {
    let Some(ca) = ca() else { return };
    let (directory, built) = built(&ca);
    let store = directory.path().join("trust").join(JAVA_STORE);
    let listed = Command::new("keytool")
        .args([
            "-list",
            "-storetype",
            "JKS",
            "-storepass",
            jks::PASSWORD,
            "-keystore",
        ])
        .arg(store)
        .output();
    let Ok(listed) = listed else { return };
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success(), "{text}");
    let count = format!("contains {} entr", built.system_roots + 1);
    assert!(text.contains(&count), "{text}");
}

#[test]
fn the_bundle_adds_to_the_public_roots() {
    let Some(ca) = ca() else { return };
    let (directory, built) = built(&ca);
    let bundle = fs::read_to_string(directory.path().join("trust/ca-bundle.pem")).unwrap();
    assert_eq!(certificates(&bundle).len(), built.system_roots + 1);
    assert_eq!(certificates(&bundle).last(), certificates(&ca).first());
}

#[test]
fn without_system_roots_our_ca_is_all_and_it_is_said() {
    let Some(ca) = ca() else { return };
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    let built = build_from(
        &directory.path().join("t"),
        &ca,
        &nowhere,
        &["/nonexistent"],
    )
    .unwrap();
    assert_eq!((built.system_bundle, built.system_roots), (None, 0));
}

#[test]
fn a_taken_hash_gives_the_next_number_and_private_files_stay_private() {
    let Some(ca) = ca() else { return };
    let hash = subject_hash(&certificates(&ca)[0]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let system = directory.path().join("system");
    fs::create_dir(&system).unwrap();
    fs::write(system.join("other.pem"), "x").unwrap();
    fs::write(system.join("key.pem"), "private").unwrap();
    fs::set_permissions(system.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("other.pem", system.join(format!("{hash}.0"))).unwrap();
    symlink("../far.crt", system.join("far.pem")).unwrap();
    let trust = directory.path().join("t");
    build_from(&trust, &ca, &system, &[]).unwrap();
    let link = |name: &str| fs::read_link(trust.join(CERTIFICATES).join(name)).unwrap();
    assert_eq!(link(&format!("{hash}.0")), Path::new("other.pem"));
    assert_eq!(link(&format!("{hash}.1")), Path::new("postern.pem"));
    assert!(link("far.pem").is_absolute());
    assert!(!trust.join("certs/key.pem").exists());
}

#[test]
fn variables_point_into_the_directory_and_java_options_are_kept() {
    let variables = environment(Path::new("/run/t"), Some("-Xmx1g"));
    let value = |name: &str| &variables.iter().find(|(key, _)| key == name).unwrap().1;
    assert_eq!(value("SSL_CERT_FILE"), "/run/t/ca-bundle.pem");
    assert_eq!(value("NODE_EXTRA_CA_CERTS"), "/run/t/ca.pem");
    assert!(value("JAVA_TOOL_OPTIONS").starts_with("-Xmx1g -Djavax"));
}

#[test]
fn something_that_is_no_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = build(&directory.path().join("t"), "hello").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
