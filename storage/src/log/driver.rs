//! What moves the log writer: a thread in production, a task in simulation.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::Shared;
use super::writer::LogWriter;
use crate::{Driver, OpenError};

/// Stops the writer when dropped, after everything queued is written.
#[derive(Debug)]
pub(crate) struct DriverHandle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the writer.
pub(crate) fn start(writer: LogWriter, driver: Driver) -> Result<DriverHandle, OpenError> {
    let shared = Arc::clone(writer.shared());
    let thread = match driver {
        Driver::Thread => Some(
            std::thread::Builder::new()
                .name("clinch-log".into())
                .spawn(move || run_thread(writer))
                .map_err(OpenError::io("start the log writer"))?,
        ),
        Driver::Task => {
            tokio::spawn(run_task(writer));
            None
        }
    };
    Ok(DriverHandle { shared, thread })
}

impl Drop for DriverHandle {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in the writer has poisoned the storage already.
            let _ = thread.join();
        }
    }
}

/// Poisons the storage when the writer panics: otherwise everybody would wait for ever.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison.set("the log writer panicked");
            // Dropping the queue drops the senders, which wakes whoever waits.
            self.0.state.lock().queue.clear();
        }
    }
}

fn run_thread(mut writer: LogWriter) {
    let shared = Arc::clone(writer.shared());
    let _guard = PanicGuard(Arc::clone(&shared));
    loop {
        while let Some(work) = writer.begin() {
            writer.finish(work);
        }
        let mut state = shared.state.lock();
        if state.finished() {
            return;
        }
        if state.queue.is_empty() && !state.stopping {
            shared.work.wait(&mut state);
        }
    }
}

async fn run_task(mut writer: LogWriter) {
    let shared = Arc::clone(writer.shared());
    let _guard = PanicGuard(Arc::clone(&shared));
    loop {
        while let Some(work) = writer.begin() {
            // The bytes are with the disk but not durable: a simulated crash can fall right here.
            tokio::time::sleep(writer.sync_latency()).await;
            writer.finish(work);
        }
        if shared.state.lock().finished() {
            return;
        }
        shared.notify.notified().await;
    }
}
