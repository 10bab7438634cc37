//! Kills the members of a cluster when the test process is killed and cannot do
//! it itself: a shell that waits for its standard input to close.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context;

/// Each line names all processes there are; at the end of input those of the
/// last line are killed.
const SCRIPT: &str = "pids=; while read -r line; do pids=$line; done; \
                      for pid in $pids; do kill -9 \"$pid\" 2>/dev/null; done";

#[derive(Debug)]
pub struct Guard {
    child: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    pub fn start() -> anyhow::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start sh")?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    /// From now on these processes, and no others, are killed at the end.
    pub fn watch_over(&mut self, pids: impl Iterator<Item = u32>) -> anyhow::Result<()> {
        let line: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        let input = self.input.as_mut().context("the guard has no input")?;
        writeln!(input, "{}", line.join(" ")).context("the guard has ended")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.input.take());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_the_processes_named_last_are_killed() {
        let sleep = || Command::new("sleep").arg("60").spawn().unwrap();
        let (mut first, mut last) = (sleep(), sleep());
        let mut guard = Guard::start().unwrap();
        guard.watch_over([first.id(), last.id()].into_iter()).unwrap();
        guard.watch_over([last.id()].into_iter()).unwrap();
        drop(guard);
        assert_eq!(last.wait().unwrap().signal(), Some(9));
        assert!(first.try_wait().unwrap().is_none());
        first.kill().unwrap();
        first.wait().unwrap();
    }
}
