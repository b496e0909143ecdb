//! What real errors of rusqlite mean, of real files.

// A test may fail by a panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(feature = "sqlite")]

use std::error::Error;
use std::path::PathBuf;

use amends::FailureMode;
use amends::failure::FailedEffect::{InDoubt, NotDone};
use amends::failure::{Classifier, FailedEffect};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

#[allow(dead_code)]
mod children;
use children::{Process, role, tell};

type Answer = (FailureMode, FailedEffect, bool);

const REFUSED: Answer = (FailureMode::StepValidation, NotDone, false);
const BUSY: Answer = (FailureMode::SystemTimeout, NotDone, true);
const DISK: Answer = (FailureMode::SystemDisk, NotDone, false);
const WRONG: Answer = (FailureMode::StepLogic, NotDone, false);
const UNREADABLE: Answer = (FailureMode::StepContract, InDoubt, false);

fn answer(error: &(dyn Error + 'static)) -> Answer {
    let known = Classifier::new().classify(error);
    (known.mode, known.effect, known.retryable)
}

/// What the error means, which has to be of that code of SQLite.
fn of_code(error: &rusqlite::Error, code: ErrorCode) -> Answer {
    assert_eq!(error.sqlite_error_code(), Some(code), "{error:?}");
    answer(error)
}

/// A file with orders, and connections to it that don't wait for locks.
struct File {
    folder: TempDir,
}

impl File {
    fn new() -> Self {
        let file = File {
            folder: tempfile::tempdir().unwrap(),
        };
        file.open()
            .execute_batch(
                "create table orders (id integer primary key, name text unique, amount int check (amount > 0));
                 create table lines (id integer primary key,
                     of_order int references orders deferrable initially deferred);
                 insert into orders values (1, 'first', 10);",
            )
            .unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("orders.db")
    }

    fn open(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        connection
            .execute_batch("pragma foreign_keys = on")
            .unwrap();
        connection
    }

    fn orders(&self) -> u32 {
        count(&self.open(), "orders")
    }
}

fn count(connection: &Connection, table: &str) -> u32 {
    let sql = format!("select count(*) from {table}");
    connection.query_row(&sql, (), |row| row.get(0)).unwrap()
}

#[test]
fn a_violated_constraint_is_not_done() {
    let file = File::new();
    let connection = file.open();
    for sql in [
        "insert into orders values (1, 'second', 10)",
        "insert into orders values (2, 'first', 10)",
        "insert into orders values (2, 'second', 0)",
        // The first row is taken back with the second.
        "insert into orders values (2, 'second', 10), (3, 'first', 10)",
    ] {
        let error = connection.execute(sql, ()).unwrap_err();
        assert_eq!(of_code(&error, ErrorCode::ConstraintViolation), REFUSED);
        // Wrapped, too.
        assert_eq!(answer(&std::io::Error::other(error)), REFUSED);
    }
    assert_eq!(file.orders(), 1);
}

#[test]
fn a_commit_that_a_deferred_constraint_refuses_is_not_done() {
    let file = File::new();
    let mut connection = file.open();
    let transaction = connection.transaction().unwrap();
    transaction
        .execute("insert into lines values (1, 99)", ())
        .unwrap();
    let error = transaction.commit().unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::ConstraintViolation), REFUSED);
    assert_eq!(count(&file.open(), "lines"), 0);
}

#[test]
fn a_value_of_the_wrong_type_or_size_is_not_done() {
    let file = File::new();
    let connection = file.open();
    let error = connection
        .execute("insert into orders values ('x', 'second', 10)", ())
        .unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::TypeMismatch), REFUSED);

    connection
        .set_limit(Limit::SQLITE_LIMIT_LENGTH, 100)
        .unwrap();
    let error = connection
        .execute("insert into orders values (2, ?1, 10)", [&"x".repeat(1000)])
        .unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::TooBig), REFUSED);
    assert_eq!(file.orders(), 1);
}

#[test]
fn a_file_that_another_connection_writes_is_not_done() {
    let file = File::new();
    let other = file.open();
    other.execute_batch("begin immediate").unwrap();
    let error = file
        .open()
        .execute("insert into orders values (2, 'second', 10)", ())
        .unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::DatabaseBusy), BUSY);
}

#[test]
fn a_commit_that_a_reader_holds_up_is_not_done() {
    let file = File::new();
    let reader = file.open();
    let mut statement = reader.prepare("select id from orders").unwrap();
    let mut rows = statement.query(()).unwrap();
    assert!(rows.next().unwrap().is_some());

    let mut connection = file.open();
    let transaction = connection.transaction().unwrap();
    transaction
        .execute("insert into orders values (2, 'second', 10)", ())
        .unwrap();
    let error = transaction.commit().unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::DatabaseBusy), BUSY);
    drop(rows);
    assert_eq!(file.orders(), 1);
}

#[test]
fn a_table_that_the_same_connection_reads_is_not_done() {
    let file = File::new();
    let connection = file.open();
    let mut statement = connection.prepare("select id from orders").unwrap();
    let mut rows = statement.query(()).unwrap();
    assert!(rows.next().unwrap().is_some());
    let error = connection.execute("drop table lines", ()).unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::DatabaseLocked), BUSY);
}

#[test]
fn a_full_database_is_not_done() {
    let file = File::new();
    let mut connection = file.open();
    connection
        .query_row("pragma max_page_count = 6", (), |_| Ok(()))
        .unwrap();
    let transaction = connection.transaction().unwrap();
    transaction
        .execute("insert into orders values (2, 'second', 10)", ())
        .unwrap();
    let error = transaction
        .execute(
            "insert into orders values (3, ?1, 10)",
            [&"x".repeat(100_000)],
        )
        .unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::DiskFull), DISK);
    drop(transaction);
    assert_eq!(file.orders(), 1);
}

#[test]
fn a_database_that_is_only_read_is_not_done() {
    let file = File::new();
    let connection =
        Connection::open_with_flags(file.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let error = connection
        .execute("insert into orders values (2, 'second', 10)", ())
        .unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::ReadOnly), DISK);
}

#[test]
fn a_statement_that_is_interrupted_is_not_done() {
    let file = File::new();
    let connection = file.open();
    {
        // The row is inserted by now, and the statement not yet at its end.
        let mut statement = connection
            .prepare("insert into orders values (2, 'second', 10), (3, 'third', 10) returning id")
            .unwrap();
        let mut rows = statement.query(()).unwrap();
        assert!(rows.next().unwrap().is_some());
        connection.get_interrupt_handle().interrupt();
        let error = rows.next().unwrap_err();
        assert_eq!(of_code(&error, ErrorCode::OperationInterrupted), BUSY);
    }
    assert_eq!(file.orders(), 1);
}

#[test]
fn sql_and_parameters_at_fault_are_not_done() {
    let file = File::new();
    let connection = file.open();
    let insert = "insert into orders values (?1, 'second', 10)";
    let errors = [
        connection.execute("insert or else", ()),
        connection.execute("insert into orders (nothing) values (1)", ()),
        connection.execute(insert, ()),
        connection.execute(insert, (2, 3)),
        connection.execute(insert, &[(":nothing", &2)]),
        connection.execute("delete from orders; delete from orders", ()),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(answer(&error), WRONG, "{error:?}");
    }
    assert_eq!(file.orders(), 1);
}

#[test]
fn a_row_that_cannot_be_read_is_in_doubt_and_the_statement_ran() {
    let file = File::new();
    let connection = file.open();
    let insert = |id: u32| {
        format!("insert into orders values ({id}, 'number {id}', 1000) returning name, amount")
    };
    let errors = [
        connection
            .query_row(&insert(2), (), |row| row.get::<_, i64>(0))
            .map(|_| ()),
        connection
            .query_row(&insert(3), (), |row| row.get::<_, u8>(1))
            .map(|_| ()),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(answer(&error), UNREADABLE, "{error:?}");
    }
    assert_eq!(file.orders(), 3);
}

#[test]
fn what_a_missing_row_means_is_for_the_step_to_say() {
    let file = File::new();
    let error = file
        .open()
        .query_row(
            "update orders set amount = 1 where id = 7 returning id",
            (),
            |_| Ok(()),
        )
        .unwrap_err();
    assert_eq!(answer(&error), (FailureMode::StepLogic, InDoubt, false));
}

#[test]
fn a_file_that_is_damaged_or_no_database_is_in_doubt() {
    const DAMAGED: Answer = (FailureMode::SystemDisk, InDoubt, false);
    let file = File::new();
    let insert = "insert into orders values (2, 'second', 10)";

    let mut bytes = std::fs::read(file.path()).unwrap();
    // Everything behind the first page, where the tables' own pages are.
    bytes[4096..].fill(0xff);
    std::fs::write(file.path(), &bytes).unwrap();
    let error = file.open().execute(insert, ()).unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::DatabaseCorrupt), DAMAGED);

    std::fs::write(
        file.path(),
        "no database at all, but long enough for a header of one ".repeat(40),
    )
    .unwrap();
    let connection = Connection::open(file.path()).unwrap();
    let error = connection.execute(insert, ()).unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::NotADatabase), DAMAGED);

    let error = Connection::open(file.folder.path().join("no/such/folder.db")).unwrap_err();
    assert_eq!(of_code(&error, ErrorCode::CannotOpen), DAMAGED);
}

/// Inserts one order, and tells the code and the meaning of the error.
#[test]
fn child() {
    let Some((role, file)) = role() else { return };
    let connection = Connection::open(file).unwrap();
    if role == "without memory" {
        connection
            .query_row("pragma hard_heap_limit = 200000", (), |_| Ok(()))
            .unwrap();
    }
    let error = connection
        .execute(
            "insert into orders values (2, hex(zeroblob(?1)), 10)",
            [if role == "without memory" {
                1_000_000
            } else {
                1
            }],
        )
        .unwrap_err();
    let code = error.sqlite_error_code().unwrap();
    tell(&format!("{code:?} {:?}", answer(&error)));
    // A process that dies does not tidy up behind the failed commit.
    std::process::abort();
}

/// The limit on memory is that of a whole process.
#[test]
fn a_process_without_memory_is_in_doubt() {
    let file = File::new();
    let told = Process::start("without memory", &file.path()).rest();
    assert_eq!(told, ["OutOfMemory (SystemOutOfMemory, InDoubt, false)"]);
}

/// The reason why such an error leaves a doubt: the row is there.
#[cfg(target_os = "linux")]
#[test]
fn a_commit_whose_sync_fails_is_in_doubt_and_may_be_there() {
    let file = File::new();
    file.open()
        .query_row("pragma journal_mode = wal", (), |_| Ok(()))
        .unwrap();
    let wal = file.folder.path().join("orders.db-wal");
    let log = file.folder.path().join("strace");
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log.to_str().unwrap(),
        "-P",
        wal.to_str().unwrap(),
        "-e",
        // The first is of the log's header, the second of the commit.
        "inject=fsync,fdatasync:error=EIO:when=2+",
    ];
    assert!(
        std::process::Command::new("strace")
            .arg("-V")
            .output()
            .is_ok(),
        "this test needs strace: ./test installs it"
    );
    let told = Process::start_under(&wrapper, "without a disk", &file.path()).rest();
    assert_eq!(told, ["SystemIoFailure (SystemDisk, InDoubt, false)"]);
    assert_eq!(file.orders(), 2);
}
