//! Running the `clinch` program as its users do, with a time limit on everything.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rand::Rng as _;
use rand::SeedableRng as _;
use tokio::time::Instant;

/// Longest time for anything: a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clinch"))
}

/// Raft timings for tests that are not about them: a starved node is not taken for a dead one.
pub(crate) const CALM: [&str; 3] = [
    "raft.heartbeat-ms=200",
    "raft.election-min-ms=600",
    "raft.election-max-ms=1200",
];

/// [`CALM`] for a cluster started by the test itself.
pub(crate) fn calm() -> toml::Table {
    toml::from_str(&CALM.join("\n")).unwrap()
}

/// The program with these arguments, without settings from this process's environment.
pub(crate) fn clinch(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CLINCH_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end, which must come in time.
pub(crate) fn run(args: &[&str]) -> Output {
    run_within(args, PATIENCE)
}

/// As [`run`], for commands that have a lot to do.
pub(crate) fn run_within(args: &[&str], patience: Duration) -> Output {
    run_command(clinch(args), patience)
}

pub(crate) fn run_command(mut command: Command, patience: Duration) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (tx, rx) = channel();
    start_thread(move || drop(tx.send(child.wait_with_output())));
    match rx.recv_timeout(patience) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            signal(pid, libc::SIGKILL);
            panic!("{command:?} did not end within {patience:?}");
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that must succeed prints.
pub(crate) fn stdout_of(args: &[&str]) -> String {
    let output = run(args);
    assert!(
        output.status.success(),
        "clinch {}: {}\n{}",
        args.join(" "),
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What a command that must fail with this code says.
pub(crate) fn failure_of(args: &[&str], code: i32) -> String {
    let output = run(args);
    let said = text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "clinch {}: {said}{}",
        args.join(" "),
        text(&output.stdout)
    );
    assert!(
        !said.contains("panicked") && !said.contains("RUST_BACKTRACE"),
        "{said}"
    );
    said
}

/// A command that runs until it is told to end. Its stdout is read line by line; its stderr goes to a file.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn start(args: &[&str], stderr: PathBuf) -> Self {
        Self::start_command(clinch(args), stderr)
    }

    pub(crate) fn start_command(mut command: Command, stderr: PathBuf) -> Self {
        let file = std::fs::File::create(&stderr).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self {
            child,
            lines: lines_of(stdout),
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// The next line on stdout.
    pub(crate) fn line(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line within {PATIENCE:?}; stderr:\n{}", self.stderr())
            }
            Err(RecvTimeoutError::Disconnected) => panic!("it ended; stderr:\n{}", self.stderr()),
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        self::signal(self.pid(), signal);
    }

    /// Its exit code, once it has ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_until("the program has ended", || child.try_wait().unwrap()).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (tx, rx) = channel();
    start_thread(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if tx.send(line).is_err() {
                return;
            }
        }
    });
    rx
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own thread, outside of any node"
)]
fn start_thread(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work);
}

/// Asks again and again until there is an answer.
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[expect(unsafe_code, reason = "signals have no safe interface")]
pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: two integers go in and none of our memory is touched. The process is a child of this test, or of its
    // child, and has not been waited for.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(result, 0, "kill {pid}: {}", std::io::Error::last_os_error());
}

/// Whether a process is there and not only waits to be reaped.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A port such that it and the next `count`, and those 1,000 above, are free.
pub(crate) fn free_base(count: u16) -> u16 {
    let mut rng = rand::rngs::StdRng::from_os_rng();
    for _ in 0..1000 {
        let base = rng.random_range(12_000..30_000);
        let free = |port: u16| {
            TcpListener::bind(("127.0.0.1", port)).is_ok()
                && UdpSocket::bind(("127.0.0.1", port + 1000)).is_ok()
        };
        if (base..base + count).all(free) {
            return base;
        }
    }
    panic!("no free ports");
}
