//! Numbers from a node's `/metrics` and from this process's own recorder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// The log's write-and-sync histogram of a node; its count is the number of syncs.
const SYNCS: &str = "storage_log_sync_seconds_count";
/// The client's counter of calls that were sent again.
const RETRIES: &str = "client.call.retries";

/// Syncs of its log a node has made since it started; `None` when it does not say.
pub(crate) fn syncs(metrics: &str) -> Option<f64> {
    sum(metrics, SYNCS)
}

/// The sum of a metric over all its labels.
fn sum(metrics: &str, name: &str) -> Option<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        // Else it is another metric whose name begins alike.
        rest.starts_with([' ', '{']).then_some(())?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    metrics.lines().filter_map(value).reduce(|a, b| a + b)
}

/// Counts the Rust client's retries in this process; everything else it measures is dropped.
#[derive(Clone, Default)]
pub(crate) struct Retries(Arc<AtomicU64>);

impl Retries {
    /// Becomes the recorder of this process.
    ///
    /// # Errors
    /// When there is one already.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let retries = Self::default();
        metrics::set_global_recorder(retries.clone())?;
        Ok(retries)
    }

    /// Calls sent again since the start of the process, for any reason.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Recorder for Retries {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            RETRIES => Counter::from_arc(self.0.clone()),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_told_from_longer_names() {
        let text = "# TYPE storage_log_sync_seconds summary\n\
            storage_log_sync_seconds{quantile=\"0.5\"} 0.1\n\
            storage_log_sync_seconds_count 40\n\
            storage_log_sync_seconds_count_total 7\n\
            a{result=\"ok\"} 1\na{result=\"bad\"} 2.5\n";
        assert_eq!(syncs(text), Some(40.0));
        assert_eq!(sum(text, "a"), Some(3.5));
        assert_eq!(sum(text, "b"), None);
    }

    #[test]
    fn only_retries_are_counted() {
        let retries = Retries::default();
        metrics::with_local_recorder(&retries, || {
            metrics::counter!(RETRIES, "reason" => "moved").increment(2);
            metrics::counter!(RETRIES, "reason" => "silent").increment(1);
            metrics::counter!("other").increment(5);
        });
        assert_eq!(retries.count(), 3);
    }
}
