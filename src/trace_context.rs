//! W3C Trace Context: what a start is handed, and what a call hands on.
//!
//! Only the headers' values are spoken of here; how they travel is the caller's and the step's affair.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The flags that are known: `sampled`, and Level 2's `random-trace-id`, which has to be handed on with
/// the id that it is about. All others have to be zero in what we send.
const SAMPLED: u8 = 0x01;
const KNOWN: u8 = 0x03;

/// So much of a `tracestate` is handed on: what the standard asks for at least.
const MOST_STATE: usize = 512;

/// The trace that a start belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceOrigin {
    trace_id: String,
    parent: Option<Parent>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parent {
    span_id: String,
    flags: u8,
}

impl TraceOrigin {
    /// A trace of which only the id is known.
    pub(crate) fn of_id(trace_id: &str) -> Option<Self> {
        is_id(trace_id, 32).then(|| TraceOrigin {
            trace_id: trace_id.to_owned(),
            parent: None,
        })
    }

    /// Reads a `traceparent`. Nothing where it is malformed: the standard then has the receiver ignore it
    /// and begin a trace of its own. Of a higher version that is read which version 00 has, too.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let header = header.trim_matches([' ', '\t']);
        let mut parts = header.splitn(5, '-');
        let (version, trace_id) = (parts.next()?, parts.next()?);
        let (span_id, flags) = (parts.next()?, parts.next()?);
        let more = parts.next().is_some();
        let version = hex_byte(version).filter(|version| *version != 0xff)?;
        let valid = is_id(trace_id, 32) && is_id(span_id, 16) && !(version == 0 && more);
        let known = if version == 0 { KNOWN } else { SAMPLED };
        let flags = hex_byte(flags)? & known;
        valid.then(|| TraceOrigin {
            trace_id: trace_id.to_owned(),
            parent: Some(Parent {
                span_id: span_id.to_owned(),
                flags,
            }),
        })
    }

    pub(crate) fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// What was read, in version 00; nothing where only the id is known.
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.parent
            .as_ref()
            .map(|parent| write(&self.trace_id, &parent.span_id, parent.flags))
    }
}

/// What a run's calls hand on: made once by whoever drives the run, from what the run's start was told.
#[derive(Clone, Debug)]
pub(crate) struct RunTrace {
    trace_id: Arc<str>,
    parent: Option<Arc<str>>,
    flags: u8,
    state: Option<Arc<str>>,
}

impl RunTrace {
    /// The trace with this id, as a start with these headers left it.
    pub(crate) fn new(trace_id: &Arc<str>, traceparent: Option<&str>, state: Option<&str>) -> Self {
        let origin = traceparent.and_then(TraceOrigin::parse);
        let parent = origin.and_then(|origin| origin.parent);
        RunTrace {
            trace_id: Arc::clone(trace_id),
            // A trace that begins here may have been recorded: the journal is a record of it. A zero would have
            // every participant that heeds its caller record nothing.
            flags: parent.as_ref().map_or(SAMPLED, |parent| parent.flags),
            parent: parent.map(|parent| parent.span_id.into()),
            state: state.map(Into::into),
        }
    }

    pub(crate) fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// The span that the run was started from, in another process maybe.
    pub(crate) fn parent_span_id(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }

    pub(crate) fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The header for a call with this span id.
    pub(crate) fn traceparent(&self, span_id: &str) -> String {
        write(&self.trace_id, span_id, self.flags)
    }
}

/// The span id of a call: 16 hex digits made of what the journal has of it, so that nothing more has to be
/// written, and whoever has the journal can tell which spans of a participant belong to which attempt.
pub(crate) fn span_id(key: &str, call: &str, attempt: u32) -> String {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update([0]);
    hash.update(call);
    hash.update(attempt.to_be_bytes());
    let mut id = String::with_capacity(16);
    for byte in &hash.finalize()[..8] {
        // Writing to a string can't fail.
        let _ = write!(id, "{byte:02x}");
    }
    if is_id(&id, 16) {
        id
    } else {
        "0000000000000001".to_owned()
    }
}

/// A `tracestate` as it is handed on; nothing where it is malformed, which leaves the `traceparent` valid.
///
/// One that is too long loses entries as the standard says: long ones first, then the last ones.
pub(crate) fn tracestate(header: &str) -> Option<String> {
    let members = header
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']));
    let mut members: Vec<&str> = members.filter(|member| !member.is_empty()).collect();
    if members.len() > 32 || !members.iter().all(|member| is_member(member)) {
        return None;
    }
    let length = |members: &[&str]| {
        let commas = members.len().saturating_sub(1);
        members.iter().map(|member| member.len()).sum::<usize>() + commas
    };
    while length(&members) > MOST_STATE {
        let long = members.iter().rposition(|member| member.len() > 128);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    (!members.is_empty()).then(|| members.join(","))
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let of_key =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let begins = key
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric());
    let key = begins && key.len() <= 256 && key.bytes().all(of_key);
    let of_value = |byte: u8| matches!(byte, 0x20..=0x7e) && byte != b'=';
    key && matches!(value.len(), 1..=256) && value.bytes().all(of_value)
}

fn write(trace_id: &str, span_id: &str, flags: u8) -> String {
    format!("00-{trace_id}-{span_id}-{flags:02x}")
}

/// Whether it is so many lower-case hex digits, not all zero.
fn is_id(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(is_hex) && text.bytes().any(|byte| byte != b'0')
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn hex_byte(text: &str) -> Option<u8> {
    let valid = text.len() == 2 && text.bytes().all(is_hex);
    valid.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(header: &str) -> Option<String> {
        TraceOrigin::parse(header).and_then(|origin| origin.traceparent())
    }

    #[test]
    fn what_the_standard_allows_is_read() {
        let plain = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(read(&plain).as_ref(), Some(&plain));
        assert_eq!(read(&format!(" \t{plain} ")).as_ref(), Some(&plain));
        let unsampled = format!("00-{TRACE}-00f067aa0ba902b7-00");
        assert_eq!(read(&unsampled).as_ref(), Some(&unsampled));
        // Flags that nobody knows are not handed on.
        let flags = |flags: &str| read(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}"));
        assert!(flags("ff").unwrap().ends_with("-03"));
        assert!(flags("04").unwrap().ends_with("-00"));
        // A higher version becomes the one that is known here.
        let higher = format!("cc-{TRACE}-00f067aa0ba902b7-03-what-the-future-brings");
        assert_eq!(read(&higher).as_ref(), Some(&plain));
        let higher = format!("01-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(read(&higher).as_ref(), Some(&plain));
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        let zeros = "0".repeat(32);
        for header in [
            String::new(),
            "00".to_owned(),
            TRACE.to_owned(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("0-{TRACE}-00f067aa0ba902b7-01"),
            format!("0G-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-00F067AA0BA902B7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-1"),
            format!("00-{TRACE}-00f067aa0ba902b7-+1"),
            format!("00-{TRACE}-00f067aa0ba902b7-0x"),
            format!("cc-{TRACE}-00f067aa0ba902b7-011"),
            format!("00-{TRACE}é-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", &TRACE[1..]),
            "00-4bf92f3577b34da6-a3ce929d0e0e4736-01".to_owned(),
        ] {
            assert_eq!(TraceOrigin::parse(&header), None, "{header}");
        }
        assert_eq!(TraceOrigin::of_id(&zeros), None);
        assert_eq!(TraceOrigin::of_id("order-4711"), None);
        assert_eq!(TraceOrigin::of_id(TRACE).unwrap().traceparent(), None);
    }

    #[test]
    fn a_tracestate_keeps_its_order_and_is_cut_at_whole_entries() {
        assert_eq!(
            tracestate(" rojo=00f067aa0ba902b7 ,\t, congo=t61rcWkgMzE").as_deref(),
            Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
        );
        for malformed in [
            "", " , ", "rojo", "Rojo=1", "rojo=", "rojo=a=b", "rojo=é", "=1", "*=1",
        ] {
            assert_eq!(tracestate(malformed), None, "{malformed}");
        }
        assert_eq!(tracestate(&vec!["a=1"; 33].join(",")), None);
        let long = format!("first=1,long={},{}", "x".repeat(200), "y=1,".repeat(30));
        let cut = tracestate(&long);
        assert_eq!(cut.as_deref(), Some(long.trim_end_matches(',')));
        let entry = |key: &str, length| format!("{key}={}", "v".repeat(length));
        let (long, longer, short) = (entry("l", 150), entry("m", 200), entry("n", 100));
        assert_eq!(
            tracestate(&[&*long, &longer, &short, "o=1", &short].join(",")).unwrap(),
            [&*long, &short, "o=1", &short].join(",")
        );
        let many = (0..30)
            .map(|n| format!("k{n:02}={}", "v".repeat(20)))
            .collect::<Vec<_>>();
        assert_eq!(tracestate(&many.join(",")).unwrap(), many[..20].join(","));
    }

    #[test]
    fn a_span_id_tells_calls_apart_and_is_the_same_again() {
        let id = span_id("1234/pay/1", "execute", 1);
        assert!(is_id(&id, 16), "{id}");
        assert_eq!(id, span_id("1234/pay/1", "execute", 1));
        for other in [
            span_id("1234/pay/1", "execute", 2),
            span_id("1234/pay/1", "probe", 1),
            span_id("1234/pay/2", "execute", 1),
        ] {
            assert_ne!(id, other);
        }
    }
}
