//! Every cell of every repeat, each in a process of its own, and what came out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use measure::{Disk, Failed, Measured, Order};
use tempfile::TempDir;

use crate::contenders::{CONTESTANTS, Contestant};
use crate::machine;
use crate::options::Options;

/// A cell of the table, with all its repeats.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) contestant: &'static Contestant,
    pub(crate) fails: bool,
    pub(crate) in_flight: usize,
    /// What came out, or why nothing did.
    pub(crate) repeats: Vec<Result<Measured, String>>,
}

#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) about: Vec<String>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) took: Duration,
}

/// In each repeat all contestants of a block take their turns, one right after the other: the machine drifts, and
/// so it drifts for all.
pub(crate) fn play(options: &Options) -> Result<Played, Failed> {
    let began = Instant::now();
    let exe = std::env::current_exe()?;
    let target = exe
        .parent()
        .and_then(Path::parent)
        .ok_or("no target folder")?;
    let contestants: Vec<&Contestant> = CONTESTANTS
        .iter()
        .filter(|one| options.wants(one))
        .collect();
    if contestants.is_empty() {
        return Err("nothing is left to measure".into());
    }
    let on_sqlx = contestants.iter().any(|one| one.on_sqlx);
    let sqlx = if on_sqlx {
        build_sqlx(target)?
    } else {
        exe.clone()
    };
    let folder = options
        .folder
        .clone()
        .unwrap_or(target.to_owned())
        .canonicalize()?;
    let mut about = machine::lines(&folder).to_vec();
    about.extend(crate::postgres::line(options)?);
    let mut pauses = Pauses::new(&folder);

    let mut cells = Vec::new();
    for fails in [false, true] {
        for &in_flight in &options.in_flight {
            cells.extend(contestants.iter().map(|contestant| Cell {
                contestant,
                fails,
                in_flight,
                repeats: Vec::new(),
            }));
        }
    }
    let all = cells.len() * options.repeats;
    for repeat in 0..options.repeats {
        let done = repeat * cells.len();
        for (at, cell) in cells.iter_mut().enumerate() {
            let Contestant { engine, shown, .. } = cell.contestant;
            let saga = if cell.fails { "failing" } else { "successful" };
            let number = done + at + 1;
            eprintln!(
                "{number} of {all}: {engine}, {shown}; {saga}, {} in flight",
                cell.in_flight
            );
            let exe = if cell.contestant.on_sqlx { &sqlx } else { &exe };
            pauses.pause(options);
            let measured = turn(options, cell, exe, &folder);
            cell.repeats
                .push(measured.map_err(|error| error.to_string()));
        }
    }
    about.extend(pauses.line());
    Ok(Played {
        about,
        cells,
        took: began.elapsed(),
    })
}

/// Builds the program of the rivals on sqlx, and says where it is.
fn build_sqlx(target: &Path) -> Result<PathBuf, Failed> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--manifest-path",
    ]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/sqlx/Cargo.toml"));
    build.arg("--target-dir").arg(target);
    // What `cargo run` tells this program of its own package: ring would be built anew for each other value.
    for (name, _) in std::env::vars_os() {
        let own = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ];
        if name
            .to_str()
            .is_some_and(|name| own.iter().any(|own| name.starts_with(own)))
        {
            build.env_remove(name);
        }
    }
    if cfg!(feature = "postgres") {
        build.args(["--features", "postgres"]);
    }
    match build.stdout(Stdio::null()).status()?.success() {
        true => Ok(target.join("release/rivals-sqlx")),
        false => Err("the rivals on sqlx can't be built".into()),
    }
}

/// One cell, once: files, schema and process are gone when it ends.
fn turn(options: &Options, cell: &Cell, exe: &Path, folder: &Path) -> Result<Measured, Failed> {
    let folder = TempDir::with_prefix_in("rivals-", folder)?;
    let files = folder.path().join("files");
    std::fs::create_dir(&files)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "above zero"
    )]
    let memory = (options.memory_gib * f64::from(1 << 30)) as u64;
    let order = Order {
        engine: cell.contestant.engine.to_owned(),
        store: cell.contestant.store.to_owned(),
        setting: cell.contestant.setting.to_owned(),
        fails: cell.fails,
        in_flight: cell.in_flight,
        seconds: options.seconds,
        folder: files,
        postgres: options.postgres.clone(),
        schema: format!("rivals_{}", std::process::id()),
        memory,
    };
    let on_server = order.store == "PostgreSQL";
    let said = called(exe, &order, folder.path());
    if on_server {
        crate::postgres::drop_schema(options, &order.schema)?;
    }
    let measured: Measured = serde_json::from_str(&said?)?;
    Ok(measured)
}

/// What a cell's process printed. It is ended where it takes half a minute longer than it should.
fn called(exe: &Path, order: &Order, folder: &Path) -> Result<String, Failed> {
    let (out, err) = (folder.join("out"), folder.join("err"));
    let mut process = Command::new(exe)
        .arg(&order.engine)
        .arg(serde_json::to_string(order)?)
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?)
        .spawn()?;
    let at_most = Duration::from_secs_f64(order.seconds * 1.2 + 30.0);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        if began.elapsed() > at_most {
            process.kill()?;
            process.wait()?;
            return Err(format!("nothing came out in {} s", at_most.as_secs()).into());
        }
        sleep(Duration::from_millis(10));
    };
    if status.success() {
        // An engine may log to where the result is printed.
        let said = std::fs::read_to_string(out)?;
        return Ok(said.lines().next_back().unwrap_or_default().to_owned());
    }
    let said = std::fs::read_to_string(err)?;
    let said = said.lines().find(|line| !line.trim().is_empty());
    Err(format!("{status}: {}", said.unwrap_or("it said nothing")).into())
}

/// The disk counts for all who write to it: what it counts while nothing is measured is somebody else's.
struct Pauses {
    disk: Option<Disk>,
    flushes: u64,
    took: Duration,
}

impl Pauses {
    fn new(folder: &Path) -> Self {
        Self {
            disk: Disk::of(folder),
            flushes: 0,
            took: Duration::ZERO,
        }
    }

    fn pause(&mut self, options: &Options) {
        let Some(disk) = &self.disk else { return };
        // What the cell before has left behind goes to the disk first.
        let length = Duration::from_secs_f64((options.seconds / 20.0).min(0.2));
        sleep(length);
        let (before, began) = (disk.flushes(), Instant::now());
        sleep(length);
        if let Some((after, before)) = disk.flushes().zip(before) {
            self.flushes += after - before;
            self.took += began.elapsed();
        }
    }

    fn line(&self) -> Option<String> {
        self.disk.as_ref()?;
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = self.flushes as f64 / self.took.as_secs_f64();
        Some(format!(
            "Flushes are the whole disk's own count; in the pauses between the cells it was {rate:.1} a second."
        ))
    }
}
