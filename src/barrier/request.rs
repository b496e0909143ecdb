//! What a call asks for, in a digest.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::isolation::fingerprint_of;
use crate::saga::hex;
use crate::step::PayloadError;

/// The digest of what a call asks for. Under one key there may be only one.
///
/// Take it of what the effect depends on, and leave out what may differ from one attempt to the next:
/// times, trace ids, and in a compensate whether the coordinator knew the execute's output.
///
/// ```
/// use amends::barrier::Request;
///
/// let request = Request::of(&("order-4711", 120))?;
/// assert_eq!(request, Request::of(&("order-4711", 120))?);
/// assert_ne!(request, Request::of(&("order-4711", 121))?);
/// # Ok::<(), amends::step::PayloadError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(String);

impl Request {
    /// Of a value: SHA-256 of its JSON with sorted keys, without white space.
    ///
    /// # Errors
    ///
    /// [`PayloadError::Encode`] where the value can't be written as JSON.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        Ok(Request(fingerprint_of(value)?.to_string()))
    }

    /// Of bytes: their SHA-256. For a request whose body comes the same each time.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Request(hex(&Sha256::digest(bytes)))
    }

    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
