//! Reading what a key says.

/// The path of the step, and the run's uid, that a key speaks of. The round comes last.
pub(super) fn step_of(key: &str) -> (String, String) {
    let Some((run, rest)) = key.split_once('/') else {
        return (key.to_owned(), String::new());
    };
    let path = rest.rsplit_once('/').map_or(rest, |(path, _)| path);
    (unescape(path), run.to_owned())
}

/// The name behind its percent-encoded form in keys.
fn unescape(escaped: &str) -> String {
    let bytes = escaped.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = escaped
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_its_step_as_the_definition_names_it() {
        let (step, run) = step_of("00ff/charge%20card%2F%25/12");
        assert_eq!((step.as_str(), run.as_str()), ("charge card/%", "00ff"));
        assert_eq!(step_of("100%/z%C3%A4hl%/1").0, "zähl%");
        assert_eq!(step_of("no key").0, "no key");
    }

    #[test]
    fn a_key_gives_the_path_of_a_step_inside_others() {
        let (step, run) = step_of("00ff/ship%20it[2]/items[0]/3");
        assert_eq!(
            (step.as_str(), run.as_str()),
            ("ship it[2]/items[0]", "00ff")
        );
    }
}
