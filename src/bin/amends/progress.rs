//! A bar for long work, on the standard error and only where a person sees it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::session::Session;

/// A bar over so many things; a spinner with a count where nobody knows how many there are.
pub(crate) fn bar(session: &Session, doing: &str, total: Option<u64>) -> ProgressBar {
    // indicatif itself draws nothing where the standard error is no terminal.
    let target = if session.out.is_json() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(total, target).with_message(doing.to_owned());
    let form = match total {
        Some(_) => "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len} ({eta} left)",
        None => "{spinner} {msg} {human_pos} ({per_sec})",
    };
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
