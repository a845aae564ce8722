//! What a program says about itself while it runs: its log, and the spans of turns where a collector wants them.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::exit::{Outcome, ResultExt as _};

/// Names the filter of the log; as in `CLINCH_LOG=debug` or `CLINCH_LOG=info,openraft=debug`.
const LOG_VARIABLE: &str = "CLINCH_LOG";

/// How long a program that ends waits for its last spans to leave.
#[cfg(feature = "otlp")]
const SPANS_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// Spans on their way out, if they have one.
pub(super) struct Spans {
    #[cfg(feature = "otlp")]
    export: Option<crate::otlp::Export>,
}

/// Begins to log to stderr.
pub(super) fn begin(default: &str) -> Outcome<Spans> {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) if !text.is_empty() => text,
        _ => default.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(anyhow::Error::new).usage()?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_filter(filter);
    let all = tracing_subscriber::registry().with(log);
    #[cfg(feature = "otlp")]
    if let Some((layer, export)) = crate::otlp::layer().usage()? {
        all.with(layer).init();
        let export = Some(export);
        return Ok(Spans { export });
    }
    all.init();
    Ok(Spans {
        #[cfg(feature = "otlp")]
        export: None,
    })
}

impl Spans {
    /// Does the program's work while spans leave.
    pub(super) async fn around<T>(self, work: impl Future<Output = T>) -> T {
        #[cfg(feature = "otlp")]
        if let Some(export) = self.export {
            let (stop, leaving) = (export.stop(), tokio::spawn(export.run()));
            let outcome = work.await;
            stop.cancel();
            // A collector that takes its time is not waited for.
            let _ = tokio::time::timeout(SPANS_MAX, leaving).await;
            return outcome;
        }
        work.await
    }
}
