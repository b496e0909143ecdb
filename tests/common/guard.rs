//! Servers of other makers, as children of this process: gone when it is gone, in whichever way it ends.
//!
//! A shell stands between: it starts and stops the server as it is told by its standard input, and when that
//! ends it kills the server and removes its folder. A pipe ends with the process, also by SIGKILL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the shell does. `$1` is the folder, `$2` the signal for the end, the rest starts the server.
///
/// KILL hits the children of the server, too, and first stops their parent, so that nobody sees a sibling die
/// and tidies up: it is as if the machine had gone. Traps keep the shell alive where a signal goes to the
/// whole group, and aren't inherited.
const SHELL: &str = r#"
trap : INT TERM HUP
folder=$1 last=$2
shift 2
server=
end() {
    [ -n "$server" ] || return
    if [ "$1" = KILL ]; then
        kill -s STOP "$server"
        kill -s KILL $(cat "/proc/$server/task/$server/children" 2>/dev/null) "$server"
    else
        kill -s "$1" "$server"
    fi
    # A signal to the group ends a wait before its time.
    while kill -s 0 "$server" 2>/dev/null; do wait "$server"; done
    server=
}
while read -r order; do
    case $order in
        start) "$@" >>"$folder/log" 2>&1 & server=$! ;;
        alive) kill -s 0 "$server" 2>/dev/null || { echo gone; continue; } ;;
        leave) end KILL; exit ;;
        *) end "$order" ;;
    esac
    echo done
done
end "$last"
rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }
"#;

/// Removes a folder, `$1`, when nobody is left who says that it is to be kept. What still writes into it then
/// soon finds that it is gone.
const WATCH: &str = r#"
trap : INT TERM HUP
read -r keep && exit
for _ in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 1; done
"#;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, and the folder that it lives in.
#[derive(Debug)]
pub struct Guarded {
    shell: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    user: Option<(u32, u32)>,
}

impl Guarded {
    /// Guards a server that this command starts. When all is over it gets the signal `last`.
    pub fn new(folder: Folder, last: &str, program: &Path, arguments: &[String]) -> Self {
        let mut shell = folder
            .command(Path::new("sh"))
            .args(["-c", SHELL, "sh"])
            .arg(&folder.path)
            .arg(last)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Guarded {
            orders: shell.stdin.take(),
            answers: BufReader::new(shell.stdout.take().unwrap()),
            shell,
            user: folder.user,
            folder: folder.keep(),
        }
    }

    /// Starts the server, and waits until it is ready. Says whether it became so, or ended before.
    pub fn start(&mut self, ready: impl Fn() -> bool) -> bool {
        self.order("start");
        let pause = Duration::from_millis(10);
        for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
            if self.order("alive") == "gone" {
                self.order("KILL");
                return false;
            }
            if ready() {
                return true;
            }
            std::thread::sleep(pause);
        }
        false
    }

    /// Sends the server a signal, and waits for its end. `KILL` goes to its children, too.
    pub fn stop(&mut self, signal: &str) {
        self.order(signal);
    }

    /// What the server has written so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The folder that it lives in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives the server up, and keeps its folder.
    pub fn release(mut self) -> Folder {
        self.order("leave");
        Folder::watched(self.folder.clone(), self.user)
    }

    fn order(&mut self, order: &str) -> String {
        let orders = self.orders.as_mut().unwrap();
        writeln!(orders, "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Where the server has ended the folder has gone, too.
        let _ = self.shell.wait();
    }
}

/// A new folder for a server, of the user that the server runs as. It is gone with this process, too.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    user: Option<(u32, u32)>,
    watch: Option<Child>,
}

impl Folder {
    /// A folder that is empty. Its path is short, since those of sockets have to be.
    pub fn new() -> Self {
        let made = tempfile::Builder::new().prefix("amends-").tempdir();
        let (path, user) = (made.unwrap().keep(), unprivileged());
        give(&path, user);
        Folder::watched(path, user)
    }

    fn watched(path: PathBuf, user: Option<(u32, u32)>) -> Self {
        let mut folder = Folder {
            path,
            user,
            watch: None,
        };
        let mut watch = folder.command(Path::new("sh"));
        watch.args(["-c", WATCH, "sh"]).arg(&folder.path);
        watch.stdin(Stdio::piped()).stdout(Stdio::null());
        folder.watch = Some(watch.stderr(Stdio::null()).spawn().unwrap());
        folder
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only the server's user can read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt as _;

        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        give(&path, self.user);
        path
    }

    /// A command as the user that owns this folder, in this folder.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Runs a command to its end; it has to succeed.
    pub fn run(command: &mut Command) {
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{command:?}: {ran:?}");
    }

    /// Leaves the folder to somebody else to remove.
    fn keep(mut self) -> PathBuf {
        if let Some(mut watch) = self.watch.take() {
            let mut told = watch.stdin.take().unwrap();
            told.write_all(b"keep\n").unwrap();
            watch.wait().unwrap();
        }
        std::mem::take(&mut self.path)
    }
}

fn give(path: &Path, user: Option<(u32, u32)>) {
    chown(path, user.map(|it| it.0), user.map(|it| it.1)).unwrap();
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            drop(watch.stdin.take());
            let _ = watch.wait();
        }
    }
}

/// A port of the loopback device that is free now.
///
/// It is below those that the kernel gives to connections, so that none of them takes it while the server
/// that had it is down.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const PORTS: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);

    // Processes that run side by side begin at different places.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let begin = (u64::from(std::process::id()) * 97 + u64::from(now.subsec_micros())) % 12_000;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (u16::try_from(begin).unwrap() + next % PORTS) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A program on the path, or in one of these folders.
pub fn program(name: &str, folders: &[&str], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(folders.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.exists())
        .unwrap_or_else(|| {
            panic!("this needs `{name}`: ./test installs it; or install the package `{package}`")
        })
}

/// Servers refuse to run as root: then they run as one of these. Nothing where we are not root.
fn unprivileged() -> Option<(u32, u32)> {
    // Whose files this process makes.
    let own = tempfile::tempfile().unwrap().metadata().unwrap().uid();
    if own != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let ids = ["postgres", "nobody"].iter().find_map(|name| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut words = line.split(':').skip(2);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    Some(ids.expect("no user `postgres` or `nobody` to run servers as"))
}
