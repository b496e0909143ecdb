//! Text that is compared with a file, and written to it where `AMENDS_UPDATE=1` says so.

// Helper functions of tests aren't test functions.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

use std::path::Path;

/// Compares with this file of the repository.
pub fn is(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("AMENDS_UPDATE").is_some_and(|it| it == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept == text {
        return;
    }
    let differs = kept
        .lines()
        .zip(text.lines())
        .position(|(kept, now)| kept != now)
        .unwrap_or_else(|| kept.lines().count().min(text.lines().count()));
    panic!(
        "{file} differs from line {} on; with AMENDS_UPDATE=1 it is written anew.\nit has:  {:?}\nand now: {:?}",
        differs + 1,
        kept.lines().nth(differs),
        text.lines().nth(differs),
    );
}
