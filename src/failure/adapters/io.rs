//! Errors of `std::io`, and tokio's time-out.

use std::error::Error;
use std::io;
use std::io::ErrorKind as Kind;

use super::{Known, Row, find, row};
use crate::failure::FailedEffect::{InDoubt, NotDone};
use crate::failure::FailureMode;

pub(super) static ROWS: &[Row<Kind>] = &[
    row(
        "connection refused",
        &[Kind::ConnectionRefused],
        FailureMode::ApiUnavailable,
        NotDone,
        "The peer's kernel answered that nobody listens, so no byte reached a program. The only kind that can't follow an established connection.",
    ),
    row(
        "reset, aborted, broken pipe, early end of file, not connected",
        &[
            Kind::ConnectionReset,
            Kind::ConnectionAborted,
            // The failed write may be the second one.
            Kind::BrokenPipe,
            // In a step, a peer that hung up within its reply; where it is a truncated file, the
            // retries are wasted but do no harm.
            Kind::UnexpectedEof,
            // Some systems report a lost connection as this at the next call.
            Kind::NotConnected,
        ],
        FailureMode::SystemNetwork,
        InDoubt,
        "A connection that had been there was given up. The request may have been read in full, and only its reply lost.",
    ),
    row(
        "host or network unreachable, network down",
        &[
            Kind::HostUnreachable,
            Kind::NetworkUnreachable,
            Kind::NetworkDown,
        ],
        FailureMode::SystemNetwork,
        InDoubt,
        "Usually of a connect that sent nothing; but a route may also vanish below an established connection, and then the error is the same.",
    ),
    row(
        "address in use or not available",
        &[Kind::AddrNotAvailable, Kind::AddrInUse],
        FailureMode::SystemNetwork,
        InDoubt,
        "No port is free here, or it is taken. A client that reconnects in the middle of its work gets it after an effect.",
    ),
    row(
        "timed out, would block",
        // A blocking socket with a read time-out gives the second on Unix, the first on Windows.
        &[Kind::TimedOut, Kind::WouldBlock],
        FailureMode::SystemTimeout,
        InDoubt,
        "A connect that took too long sent nothing, a read that did may have sent all; the error is the same.",
    ),
    row(
        "permission denied",
        &[Kind::PermissionDenied],
        FailureMode::PermissionDenied,
        InDoubt,
        "The refused call may be the second of several on files.",
    ),
    row(
        "storage full, quota exceeded, file too large, read-only file system",
        &[
            Kind::StorageFull,
            Kind::QuotaExceeded,
            Kind::FileTooLarge,
            Kind::ReadOnlyFilesystem,
        ],
        FailureMode::SystemDisk,
        InDoubt,
        "What was written before the disk was full is still there.",
    ),
    row(
        "out of memory",
        &[Kind::OutOfMemory],
        FailureMode::SystemOutOfMemory,
        InDoubt,
        "Memory can run out at any moment of a call.",
    ),
    row(
        "invalid input, invalid data",
        &[Kind::InvalidInput, Kind::InvalidData],
        FailureMode::StepValidation,
        InDoubt,
        "Often a reply that does not parse: the effect behind it may well be there.",
    ),
];

pub(super) static TOKIO: &[Row<()>] = &[row(
    "`tokio::time::error::Elapsed`",
    &[()],
    FailureMode::StepTimeout,
    InDoubt,
    "Dropping a future stops it at an await point; what it had sent by then is on its way.",
)];

/// `Other` says nothing; `NotFound`, `AlreadyExists`, `Interrupted` and the like mean something else
/// in every step: these are unknown.
pub(super) fn classify(error: &(dyn Error + 'static)) -> Option<Known> {
    let known = if let Some(error) = error.downcast_ref::<io::Error>() {
        find(ROWS, |kind| *kind == error.kind())?.classification()
    } else if error.is::<tokio::time::error::Elapsed>() {
        TOKIO.first()?.classification()
    } else {
        return None;
    };
    Some(Known::Whole(known))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    fn answer(
        error: &(dyn Error + 'static),
    ) -> Option<(FailureMode, crate::failure::FailedEffect, bool)> {
        match classify(error)? {
            Known::Whole(it) => Some((it.mode, it.effect, it.retryable)),
            Known::Phase(_) => panic!("an io error knows no phase"),
        }
    }

    #[test]
    fn only_a_refused_connection_is_not_done() {
        let kinds = [
            Kind::NotFound,
            Kind::PermissionDenied,
            Kind::ConnectionRefused,
            Kind::ConnectionReset,
            Kind::HostUnreachable,
            Kind::NetworkUnreachable,
            Kind::ConnectionAborted,
            Kind::NotConnected,
            Kind::AddrInUse,
            Kind::AddrNotAvailable,
            Kind::NetworkDown,
            Kind::BrokenPipe,
            Kind::AlreadyExists,
            Kind::WouldBlock,
            Kind::NotADirectory,
            Kind::IsADirectory,
            Kind::DirectoryNotEmpty,
            Kind::ReadOnlyFilesystem,
            Kind::StaleNetworkFileHandle,
            Kind::InvalidInput,
            Kind::InvalidData,
            Kind::TimedOut,
            Kind::WriteZero,
            Kind::StorageFull,
            Kind::NotSeekable,
            Kind::QuotaExceeded,
            Kind::FileTooLarge,
            Kind::ResourceBusy,
            Kind::ExecutableFileBusy,
            Kind::Deadlock,
            Kind::TooManyLinks,
            Kind::ArgumentListTooLong,
            Kind::Interrupted,
            Kind::Unsupported,
            Kind::UnexpectedEof,
            Kind::OutOfMemory,
            Kind::Other,
        ];
        let effect = |kind: Kind| answer(&io::Error::from(kind)).map(|(_, effect, _)| effect);
        let not_done: Vec<_> = kinds
            .into_iter()
            .filter(|kind| effect(*kind) == Some(NotDone))
            .collect();
        assert_eq!(not_done, [Kind::ConnectionRefused]);
        assert_eq!(kinds.into_iter().filter_map(effect).count(), 21);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens() {
        // Bound but not listening: nobody else can take the port meanwhile.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(
            answer(&error),
            Some((FailureMode::ApiUnavailable, NotDone, true))
        );
    }

    #[tokio::test]
    async fn a_connection_that_the_peer_resets() {
        use tokio::io::AsyncReadExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        // With no time to linger a close sends a reset instead of an orderly end.
        peer.set_zero_linger().unwrap();
        drop(peer);
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(
            answer(&error),
            Some((FailureMode::SystemNetwork, InDoubt, true))
        );
    }

    #[test]
    fn a_peer_that_hangs_up_within_its_reply() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"half").unwrap();
        drop(peer);
        let error = client.read_exact(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            answer(&error),
            Some((FailureMode::SystemNetwork, InDoubt, true))
        );
    }

    #[test]
    fn a_blocking_read_that_takes_too_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(
            answer(&error),
            Some((FailureMode::SystemTimeout, InDoubt, true))
        );
    }

    #[tokio::test]
    async fn a_future_that_takes_too_long() {
        let pending = std::future::pending::<()>();
        let error = tokio::time::timeout(Duration::from_millis(1), pending)
            .await
            .unwrap_err();
        assert_eq!(
            answer(&error),
            Some((FailureMode::StepTimeout, InDoubt, true))
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_may_not_be_run() {
        // Unlike a read or a write, this is refused to the superuser too.
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = std::process::Command::new(file.path()).spawn().unwrap_err();
        assert_eq!(
            answer(&error),
            Some((FailureMode::PermissionDenied, InDoubt, false))
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk() {
        let mut full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let error = full.write_all(b"x").unwrap_err();
        assert_eq!(
            answer(&error),
            Some((FailureMode::SystemDisk, InDoubt, false))
        );
    }

    #[test]
    fn a_missing_file_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let error = std::fs::File::open(folder.path().join("missing")).unwrap_err();
        assert_eq!(answer(&error), None);
    }

    #[test]
    fn bad_text_is_a_matter_of_validation() {
        let error = (&[0xff_u8][..])
            .read_to_string(&mut String::new())
            .unwrap_err();
        assert_eq!(
            answer(&error),
            Some((FailureMode::StepValidation, InDoubt, false))
        );
    }
}
