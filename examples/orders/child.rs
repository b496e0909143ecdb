//! Processes of this example: started by the parent, killed by the parent, and gone when it is gone.
//!
//! Every child is this very program with a hidden subcommand. Its standard input is a pipe that the
//! parent holds open, and writes to if it is a worker's; when the parent ends, however it ends, the pipe closes.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Error;

/// In a child: waits until the parent has closed its end of standard input.
pub(crate) fn parent_is_done() -> impl Future<Output = ()> + Send + 'static {
    let (tell, hear) = oneshot::channel();
    std::thread::spawn(move || {
        // Whatever ends this, an end of file or an error, there is no parent to listen to any more.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = tell.send(());
    });
    async move {
        let _ = hear.await;
    }
}

/// In the parent: a child that runs.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    lifeline: Option<ChildStdin>,
}

impl Process {
    /// Starts this program again, with other arguments.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, Error> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lifeline = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .ok_or("a child has no standard output")?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout).lines(),
            lifeline,
        })
    }

    /// The next line that the child prints, or `None` when it has ended.
    ///
    /// # Cancel safety
    ///
    /// No line is lost when the future is dropped.
    pub(crate) async fn line(&mut self) -> Result<Option<String>, Error> {
        Ok(self.lines.next_line().await?)
    }

    /// SIGKILL, to this child and no other, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<(), Error> {
        Ok(self.child.kill().await?)
    }

    /// Waits for the end of a child that ends by itself.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, Error> {
        Ok(self.child.wait().await?)
    }

    /// Asks the child to finish what it has begun and leave.
    pub(crate) async fn dismiss(mut self) -> Result<(), Error> {
        drop(self.lifeline.take());
        if timeout(Duration::from_secs(10), self.child.wait())
            .await
            .is_err()
        {
            self.kill().await?;
            return Err("a process did not leave when asked to, and was killed".into());
        }
        Ok(())
    }
}

/// What only the workers of a fleet need.
#[cfg(feature = "postgres")]
mod told {
    use std::io::BufRead as _;

    use serde::Serialize;
    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::mpsc;

    use super::Process;
    use crate::Error;

    /// In a child: the lines that the parent says, until it has closed its end of standard input.
    pub(crate) fn told_by_parent() -> mpsc::UnboundedReceiver<String> {
        let (tell, hear) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        hear
    }

    impl Process {
        /// Says something to the child, which may be gone.
        pub(crate) async fn tell(&mut self, word: &impl Serialize) -> Result<(), Error> {
            let line = serde_json::to_string(word)? + "\n";
            let pipe = self.lifeline.as_mut().ok_or("the child was dismissed")?;
            Ok(pipe.write_all(line.as_bytes()).await?)
        }

        /// The process id, while there is one.
        pub(crate) fn id(&self) -> Option<u32> {
            self.child.id()
        }
    }
}
#[cfg(feature = "postgres")]
pub(crate) use told::told_by_parent;
