//! Processes that a test starts from its own binary: each runs the test `child`, in a role.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The role that this process was started in, and the file that it is about; nothing in the test's own process.
pub(crate) fn role() -> Option<(String, String)> {
    Some((
        std::env::var("AMENDS_CHILD").ok()?,
        std::env::var("AMENDS_FILE").ok()?,
    ))
}

/// Tells the parent a line.
pub(crate) fn tell(line: &str) {
    use std::io::Write as _;
    // Not `println!`: tests capture that.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n> {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A process in a role. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this binary again.
    pub(crate) fn start(role: &str, file: &Path) -> Self {
        Process::start_under(&[], role, file)
    }

    /// Starts this binary again, as the last argument of another program.
    pub(crate) fn start_under(wrapper: &[&str], role: &str, file: &Path) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut words: Vec<_> = wrapper.iter().map(std::ffi::OsString::from).collect();
        words.push(this.into_os_string());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env("AMENDS_CHILD", role)
            .env("AMENDS_FILE", file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Process {
            child,
            stdin,
            lines: BufReader::new(stdout),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it tells; nothing once it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            // What a killed process had half written is no line.
            if let Some(told) = line
                .strip_prefix("> ")
                .and_then(|told| told.strip_suffix('\n'))
            {
                return Some(told.to_owned());
            }
            line.clear();
        }
        None
    }

    /// All further lines, until it ends.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.line()).collect()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Closes its standard input, which children take for the word to end.
    pub(crate) fn end(&mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
