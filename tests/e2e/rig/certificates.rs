//! Certificates for servers on loopback, made with openssl, good for two days.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::place::Place;

/// Whether openssl is there.
pub(crate) fn has_openssl() -> bool {
    Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success())
}

/// An authority: `NAME.key` and `NAME.pem`.
pub(crate) fn authority(place: &Place, name: &str) -> Result<()> {
    let subject = format!("/CN=kcbq test {name}");
    request(place, name, &["-nodes", "-subj", &subject])
}

/// `NAME.key` and `NAME.pem` for 127.0.0.1, signed by the authority `ca`; `key` says how the key is kept.
pub(crate) fn sign(place: &Place, name: &str, key: &[&str]) -> Result<()> {
    let (ca, ca_key) = (place.join("ca.pem"), place.join("ca.key"));
    let subject = format!("/CN={name}");
    let mut words = vec!["-CA", text(&ca)?, "-CAkey", text(&ca_key)?, "-subj", &subject];
    words.extend(["-addext", "subjectAltName=IP:127.0.0.1"]);
    words.extend(["-addext", "basicConstraints=critical,CA:false"]);
    words.extend(key);
    request(place, name, &words)
}

fn request(place: &Place, name: &str, words: &[&str]) -> Result<()> {
    let [key, certificate] = ["key", "pem"].map(|end| place.join(&format!("{name}.{end}")));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-keyout", text(&key)?, "-out", text(&certificate)?])
        .args(words)
        .output()
        .context("starting openssl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "openssl makes no {name}: {said}");
    Ok(())
}

/// A path as a word of a command.
fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the folder's name is not UTF-8")
}
