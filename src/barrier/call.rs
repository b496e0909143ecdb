//! Who calls, and for which effect.

use std::sync::Arc;

use crate::failure::barrier::CallError;
use crate::step::{CallKind, StepContext};

/// The longest key, in bytes: it is part of a primary key, and MySQL's may have 3,072.
const MOST_KEY_BYTES: usize = 2048;
/// The longest run's uid. A coordinator of this crate makes 32 hex digits.
const MOST_RUN_BYTES: usize = 64;

/// The headers that a call over HTTP has, and the one of an answer that refuses it.
pub mod header {
    /// The key of this very call: that of an execute is the effect's key, a compensate's its own.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// The key of the effect that a compensate or a probe is about.
    pub const EFFECT_KEY: &str = "amends-effect-key";
    /// The run's fence, a whole number.
    pub const FENCE: &str = "amends-fence";
    /// `execute`, `compensate` or `probe`.
    pub const CALL: &str = "amends-call";
    /// Which attempt of the step's execute this is, or asks about: a whole number, and optional.
    pub const ATTEMPT: &str = "amends-attempt";
    /// All that a call may have.
    #[cfg(feature = "http-status")]
    pub(super) const OF_A_CALL: [&str; 5] = [CALL, IDEMPOTENCY_KEY, EFFECT_KEY, FENCE, ATTEMPT];
    /// In an answer: why the barrier refused, [`BarrierError::code`](super::super::BarrierError::code).
    pub const BARRIER: &str = "amends-barrier";
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Asked {
    /// The work itself.
    Execute,
    /// Its undo.
    Compensate,
    /// What became of it.
    Probe,
}

impl Asked {
    /// The word for it in the header `Amends-Call`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Asked::Execute => "execute",
            Asked::Compensate => "compensate",
            Asked::Probe => "probe",
        }
    }

    #[cfg(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]
    fn told(self) -> &'static str {
        match self {
            Asked::Execute => "an execute",
            Asked::Compensate => "a compensate",
            Asked::Probe => "a probe",
        }
    }
}

/// One call, as the barrier has to know it: what is asked, for which effect, and under which fence.
///
/// A step in the process of its coordinator makes it of its context, [`Call::of`]. A service that is
/// called over HTTP makes it of the headers (`from_headers`, feature `http-status`), or of their values
/// where it has another kind of map.
///
/// ```
/// use amends::barrier::{Asked, Call};
///
/// let call = Call::execute("5f0a/charge/1", 3)?.attempt(2);
/// assert_eq!((call.asked(), call.run(), call.fence()), (Asked::Execute, "5f0a", 3));
///
/// let refused = Call::execute("no slash", 3).unwrap_err();
/// assert_eq!(refused.to_string(), "the call's `effect key` is not 3 to 2048 printable ASCII characters without spaces, of which a run of up to 64 and a slash come first");
/// # Ok::<(), amends::barrier::CallError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    asked: Asked,
    effect_key: Arc<str>,
    run_bytes: usize,
    fence: i64,
    attempt: Option<u32>,
}

impl Call {
    /// An execute: its [`idempotency_key`](StepContext::idempotency_key) is the effect's key.
    ///
    /// # Errors
    ///
    /// [`CallError::Malformed`] where a key is not of the form of a key, or the fence is above `i64::MAX`.
    pub fn execute(effect_key: impl Into<Arc<str>>, fence: u64) -> Result<Self, CallError> {
        Call::new(Asked::Execute, effect_key.into(), fence)
    }

    /// A compensate of the effect that was made, or would have been made, under this key.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub fn compensate(effect_key: impl Into<Arc<str>>, fence: u64) -> Result<Self, CallError> {
        Call::new(Asked::Compensate, effect_key.into(), fence)
    }

    /// A probe of the effect under this key.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub fn probe(effect_key: impl Into<Arc<str>>, fence: u64) -> Result<Self, CallError> {
        Call::new(Asked::Probe, effect_key.into(), fence)
    }

    fn new(asked: Asked, effect_key: Arc<str>, fence: u64) -> Result<Self, CallError> {
        let run_bytes = effect_key.find('/').unwrap_or_default();
        let is_key = (1..=MOST_RUN_BYTES).contains(&run_bytes)
            && (run_bytes + 2..=MOST_KEY_BYTES).contains(&effect_key.len())
            && effect_key.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_key {
            return Err(CallError::Malformed {
                what: "effect key",
                form: "3 to 2048 printable ASCII characters without spaces, of which a run of up to 64 and a slash come first",
            });
        }
        let fence = i64::try_from(fence).map_err(|_| CallError::Malformed {
            what: "fence",
            form: "a whole number below 2^63",
        })?;
        Ok(Call {
            asked,
            effect_key,
            run_bytes,
            fence,
            attempt: None,
        })
    }

    /// Which attempt of the step's execute this is; of a probe, the last one that it asks about.
    /// Default: not known.
    ///
    /// It is what lets a step try again under the same key after a probe has said `Never`: the probe
    /// closes the key to the attempts that there had been, and a later one gets in. Where either of the
    /// two doesn't say it, the key stays closed.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// The call that a step is in, in the process of its coordinator.
    ///
    /// # Errors
    ///
    /// [`CallError::Malformed`] where the step's path makes a key of more than 2,048 bytes.
    pub fn of(cx: &StepContext) -> Result<Self, CallError> {
        let asked = match cx.kind() {
            CallKind::Execute => Asked::Execute,
            CallKind::Compensate => Asked::Compensate,
            CallKind::Probe => Asked::Probe,
        };
        let call = Call::new(asked, cx.effect_key().into(), cx.fence())?;
        // An undo counts its own attempts.
        Ok(match asked {
            Asked::Execute | Asked::Probe => call.attempt(cx.attempt()),
            Asked::Compensate => call,
        })
    }

    /// The call of a request with the [headers](header) that a coordinator of this crate sends.
    ///
    /// `Amends-Call`, `Amends-Fence` and `Idempotency-Key` have to be there. `Amends-Effect-Key` has to,
    /// but for an execute, whose idempotency key it is.
    ///
    /// ```
    /// use amends::barrier::{Asked, Call};
    /// use http::HeaderMap;
    ///
    /// let mut headers = HeaderMap::new();
    /// for (name, value) in [
    ///     ("idempotency-key", "5f0a/charge/1/undo"),
    ///     ("amends-effect-key", "5f0a/charge/1"),
    ///     ("amends-fence", "3"),
    ///     ("amends-call", "compensate"),
    /// ] {
    ///     headers.insert(name, value.parse()?);
    /// }
    /// let call = Call::from_headers(&headers)?;
    /// assert_eq!(call, Call::compensate("5f0a/charge/1", 3)?);
    ///
    /// headers.remove("amends-fence");
    /// let refused = Call::from_headers(&headers).unwrap_err();
    /// assert_eq!(refused.to_string(), "the call has no `amends-fence`");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError`] where a header is missing, or says what none of ours says.
    #[cfg(feature = "http-status")]
    pub fn from_headers(headers: &http::HeaderMap) -> Result<Self, CallError> {
        for what in header::OF_A_CALL {
            if headers
                .get(what)
                .is_some_and(|value| value.to_str().is_err())
            {
                return Err(CallError::Malformed {
                    what,
                    form: "printable ASCII",
                });
            }
        }
        Call::from_values(|name| headers.get(name)?.to_str().ok())
    }

    /// The same where headers come in another kind of map: `get` gives the value of the header with this
    /// name, which is in small letters.
    ///
    /// ```
    /// use std::collections::HashMap;
    ///
    /// use amends::barrier::Call;
    ///
    /// let headers = HashMap::from([
    ///     ("idempotency-key", "5f0a/charge/1"),
    ///     ("amends-fence", "3"),
    ///     ("amends-call", "execute"),
    /// ]);
    /// let call = Call::from_values(|name| headers.get(name).copied())?;
    /// assert_eq!(call, Call::execute("5f0a/charge/1", 3)?);
    /// # Ok::<(), amends::barrier::CallError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError`] where a value is missing, or says what none of ours says.
    pub fn from_values<'a>(
        get: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Result<Self, CallError> {
        let required = |what| get(what).ok_or(CallError::Missing { what });
        let asked = match required(header::CALL)? {
            "execute" => Asked::Execute,
            "compensate" => Asked::Compensate,
            "probe" => Asked::Probe,
            _ => {
                return Err(CallError::Malformed {
                    what: header::CALL,
                    form: "`execute`, `compensate` or `probe`",
                });
            }
        };
        let own = required(header::IDEMPOTENCY_KEY)?;
        let of_effect = match (asked, get(header::EFFECT_KEY)) {
            (_, Some(key)) => key,
            (Asked::Execute, None) => own,
            (_, None) => required(header::EFFECT_KEY)?,
        };
        if asked == Asked::Execute && own != of_effect {
            return Err(CallError::Malformed {
                what: header::EFFECT_KEY,
                form: "the idempotency key, which it is for an execute",
            });
        }
        let fence = whole(header::FENCE, required(header::FENCE)?)?;
        let call = Call::new(asked, of_effect.into(), fence)?;
        match get(header::ATTEMPT) {
            Some(attempt) if asked != Asked::Compensate => {
                Ok(call.attempt(whole(header::ATTEMPT, attempt)?))
            }
            _ => Ok(call),
        }
    }

    /// What is asked.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// The run's uid: what stands before the first slash of its keys.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.effect_key[..self.run_bytes]
    }

    /// The key of the effect.
    #[must_use]
    pub fn effect_key(&self) -> &str {
        &self.effect_key
    }

    /// The fence under which the call is made.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence.unsigned_abs()
    }
}

/// What the adapters need.
#[cfg(any(feature = "tokio-postgres", feature = "sqlite", feature = "mysql"))]
impl Call {
    pub(super) fn must_be(&self, asked: Asked) -> Result<(), CallError> {
        if self.asked == asked {
            return Ok(());
        }
        Err(CallError::OtherKind {
            is: self.asked.told(),
            taken: asked.told(),
        })
    }

    pub(super) fn key(&self) -> Arc<str> {
        Arc::clone(&self.effect_key)
    }

    /// As a column holds it.
    pub(super) fn fence_column(&self) -> i64 {
        self.fence
    }

    pub(super) fn attempt_column(&self) -> Option<i64> {
        self.attempt.map(i64::from)
    }
}

fn whole<N: std::str::FromStr>(what: &'static str, value: &str) -> Result<N, CallError> {
    value.parse().map_err(|_| CallError::Malformed {
        what,
        form: "a whole number",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_begins_with_its_run_and_has_no_spaces_and_no_end_of_bytes() {
        let most = format!("r/{}", "x".repeat(MOST_KEY_BYTES - 2));
        for key in ["r/a/1", "r/", &most[..], &format!("{}/a", "r".repeat(64))] {
            let is_key = key.len() > 2;
            assert_eq!(Call::execute(key, 1).is_ok(), is_key, "{key}");
        }
        let long = format!("{most}x");
        let run = format!("{}/a", "r".repeat(65));
        for key in ["", "r", "/a", "r/a b", "r/ä", "r/a\n", &long, &run] {
            assert!(Call::execute(key, 1).is_err(), "{key}");
        }
        assert!(Call::probe("r/a/1", u64::MAX).is_err());
    }

    #[test]
    fn values_of_headers_make_the_call_or_say_which_is_wrong() {
        let call = |call, own, of_effect, fence, attempt| {
            Call::from_values(|name| match name {
                header::CALL => call,
                header::IDEMPOTENCY_KEY => own,
                header::EFFECT_KEY => of_effect,
                header::FENCE => fence,
                header::ATTEMPT => attempt,
                _ => None,
            })
            .map_err(|it| it.to_string())
        };
        let (key, fence) = (Some("r/a/1"), Some("2"));
        let execute = Call::execute("r/a/1", 2).unwrap();
        let plain = call(Some("execute"), key, None, fence, None);
        assert_eq!(plain, Ok(execute.clone()));
        let second = call(Some("execute"), key, key, fence, Some("7"));
        assert_eq!(second, Ok(execute.attempt(7)));
        let undo = call(
            Some("compensate"),
            Some("r/a/1/undo"),
            key,
            fence,
            Some("7"),
        );
        assert_eq!(undo, Ok(Call::compensate("r/a/1", 2).unwrap()));
        let asked = call(Some("probe"), key, key, fence, Some("7"));
        assert_eq!(asked, Ok(Call::probe("r/a/1", 2).unwrap().attempt(7)));

        let missing = |what: &str| Err(format!("the call has no `{what}`"));
        assert_eq!(call(None, key, key, fence, None), missing("amends-call"));
        let execute = Some("execute");
        assert_eq!(
            call(execute, None, key, fence, None),
            missing("idempotency-key")
        );
        let undo = Some("compensate");
        assert_eq!(
            call(undo, key, None, fence, None),
            missing("amends-effect-key")
        );
        assert_eq!(call(undo, key, key, None, None), missing("amends-fence"));
        assert!(call(Some("do"), key, key, fence, None).is_err());
        assert!(call(execute, key, Some("r/b/1"), fence, None).is_err());
        assert!(call(execute, key, key, Some("-1"), None).is_err());
        assert!(call(execute, key, key, fence, Some("x")).is_err());
    }
}
