//! One process of a local cluster.
//!
//! Invariant: it is signalled only while its id is its own (it is reaped under the same lock), and it ends when its
//! parent does: by an order to the kernel, so that `kill -9` of the parent leaves no orphan either.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// What can be sent to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Kill,
    Terminate,
    Pause,
    Resume,
}

/// A process that was started; it may have ended.
pub(super) struct Process {
    pid: u32,
    child: Arc<Mutex<Child>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Runs `program start --config config` and further arguments, its output appended to `log`.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        config: &Path,
        log: &Path,
        environment: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let open = File::options().create(true).append(true).open(log);
        let log = open.with_context(|| format!("log file {}", log.display()))?;
        let mut command = Command::new(program);
        command.arg("start").arg("--config").arg(config).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Settings of the parent's own environment are not meant for its nodes.
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|n| n.starts_with("CLINCH_") && n != "CLINCH_LOG")
            {
                command.env_remove(name);
            }
        }
        command.envs(environment).kill_on_drop(true);
        // Ctrl-C at the terminal reaches the parent alone, which stops its nodes in order.
        command.process_group(0);
        end_with_parent(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("running {}", program.display()))?;
        let pid = child.id().context("the process ended before it began")?;
        let child = Arc::new(Mutex::new(child));
        let (ended, exit) = watch::channel(None);
        let watched = Arc::downgrade(&child);
        tokio::spawn(async move {
            let end = poll_fn(|cx| match watched.upgrade() {
                Some(child) => pin!(child.lock().wait()).poll(cx).map(Result::ok),
                // Nobody asks any more.
                None => std::task::Poll::Ready(None),
            });
            if let Some(status) = end.await {
                ended.send_replace(Some(status));
            }
        });
        Ok(Self { pid, child, exit })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// # Errors
    /// When the process has ended.
    #[expect(unsafe_code, reason = "the standard library only knows SIGKILL")]
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let number = match signal {
            Signal::Kill => libc::SIGKILL,
            Signal::Terminate => libc::SIGTERM,
            Signal::Pause => libc::SIGSTOP,
            Signal::Resume => libc::SIGCONT,
        };
        let child = self.child.lock();
        let pid = child.id().and_then(|pid| libc::pid_t::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("the process has ended"))?;
        // SAFETY: `kill` takes two integers and touches no memory. The process is not reaped while the lock is held,
        // so the id cannot have become another's.
        match unsafe { libc::kill(pid, number) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|status| *status) {
            Ok(Some(status)) => status,
            // The watching task ends without a status only when the runtime does, and this future with it.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Asks it to end, and kills it when it has not done so within `patience`.
    pub(super) async fn stop(&self, patience: Duration) {
        // A paused process would not hear the request. An error means that it has ended: what was wanted.
        let _ = self.signal(Signal::Resume);
        let _ = self.signal(Signal::Terminate);
        if tokio::time::timeout(patience, self.wait()).await.is_err() {
            tracing::warn!(
                pid = self.pid,
                "a node did not stop within {patience:?} and is killed"
            );
            let _ = self.signal(Signal::Kill);
            self.wait().await;
        }
    }
}

/// Has the kernel end the child when the thread that starts it ends.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "there is no safe way to run code between fork and exec"
)]
fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: prctl and getppid are, nothing is
    // allocated, and the errors made here carry no text.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the order was given.
            match u32::try_from(libc::getppid()) == Ok(parent) {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            }
        });
    }
}

/// Elsewhere children of a killed parent live on until they are stopped by hand.
#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}
