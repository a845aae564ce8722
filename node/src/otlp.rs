//! Spans of turns to an OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! Invariant: nobody waits for the collector. A turn puts its span into a bounded queue or drops it, and one task empties the
//! queue in batches; what a collector does not take in time is dropped and counted.
//! Not here: what is a span (`clinch_actor::SPANS`), the log (`cli`).
//!
//! Programs that end in `clinch::cli::main_with` have it; others add it to their subscriber:
//!
//! ```no_run
//! use tracing_subscriber::layer::SubscriberExt as _;
//!
//! # async fn demo() -> anyhow::Result<()> {
//! if let Some((layer, export)) = clinch::otlp::layer()? {
//!     tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
//!     tokio::spawn(export.run());
//! }
//! # Ok(()) }
//! ```

use std::sync::OnceLock;
use std::time::Duration;

use clinch_actor::SPANS;
use metrics::counter;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::metric_names::SPANS_DROPPED;

/// Where the standard variables say that a collector is.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
/// Spans that wait for the collector; beyond them they are dropped.
const QUEUE_MAX: usize = 8192;
/// Spans in one request.
const BATCH_MAX: usize = 512;
/// How long a span waits for others to go with.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// Longest time for one request to the collector.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long a program that ends waits for its last spans to leave.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Where spans go, once a runtime is there: a program's own subscriber gets [`layer`], its runtime [`Export::run`].
#[must_use = "nothing leaves before it runs"]
pub struct Export {
    spans: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    endpoint: String,
    stop: CancellationToken,
    failing: bool,
}

/// A layer for spans of turns and nothing else, and what sends them; `None` where no variable names a collector. Of the
/// standard variables these are heard: `OTEL_EXPORTER_OTLP_ENDPOINT`, `.._TRACES_ENDPOINT`, `.._HEADERS`, `OTEL_SERVICE_NAME`
/// (default: `clinch`), `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`.
///
/// # Errors
/// When the collector is not said as `http://host:port`: TLS is for a collector beside the node to add.
pub fn layer<S>() -> anyhow::Result<Option<(impl Layer<S> + Send + Sync, Export)>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let set = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let Some((name, endpoint)) = ENDPOINTS.iter().find_map(|name| Some((*name, set(name)?))) else {
        return Ok(None);
    };
    anyhow::ensure!(
        endpoint.starts_with("http://"),
        "{name} is {endpoint:?}: it must begin with http://"
    );
    let mut resource = Resource::builder();
    if set("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("clinch");
    }
    let resource = resource.build();
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_timeout(REQUEST_MAX)
        .build()?;
    exporter.set_resource(&resource);
    let (queue, spans) = Queue::new(QUEUE_MAX);
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(queue)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("clinch"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(SPANS, LevelFilter::DEBUG));
    let export = Export {
        spans,
        exporter,
        endpoint,
        stop: CancellationToken::new(),
        failing: false,
    };
    Ok(Some((layer, export)))
}

/// The spans that have ended.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl Queue {
    fn new(max: usize) -> (Self, mpsc::Receiver<SpanData>) {
        let (sender, receiver) = mpsc::channel(max);
        (Self(sender), receiver)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            counter!(SPANS_DROPPED).increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Export {
    /// Ends [`Export::run`] when it is cancelled, after the spans that wait.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Sends spans until it is told to stop.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.next().await {
            batch.push(first);
            let full = async {
                while batch.len() < BATCH_MAX
                    && let Some(span) = self.next().await
                {
                    batch.push(span);
                }
            };
            // Out of time is as good as full.
            let _ = tokio::time::timeout(BATCH_TIME, full).await;
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// The next span; after the end only what is there already.
    async fn next(&mut self) -> Option<SpanData> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.spans.close();
                self.spans.try_recv().ok()
            }
            span = self.spans.recv() => span,
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let limit = if self.stop.is_cancelled() {
            FLUSH_MAX
        } else {
            REQUEST_MAX
        };
        let failure = match tokio::time::timeout(limit, self.exporter.export(batch)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", limit.as_secs())),
        };
        let endpoint = &self.endpoint;
        match failure {
            Some(error) => {
                counter!(SPANS_DROPPED).increment(count);
                // Once: what is lost from then on is counted.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        endpoint,
                        error,
                        "the collector takes no spans: they are dropped until it does"
                    );
                }
            }
            None if std::mem::take(&mut self.failing) => {
                tracing::warn!(endpoint, "the collector takes spans again");
            }
            None => {}
        }
    }
}

/// Makes a span a child of the one that `traceparent` names, if there is one.
pub(crate) fn continue_trace(span: &tracing::Span, headers: &[(String, String)]) {
    static PROPAGATOR: OnceLock<TraceContextPropagator> = OnceLock::new();
    if headers.iter().any(|(name, _)| name == "traceparent") {
        let propagator = PROPAGATOR.get_or_init(TraceContextPropagator::new);
        // Fails where nobody collects spans.
        let _ = span.set_parent(propagator.extract_with_context(&Context::new(), &Headers(headers)));
    }
}

/// Names are in lower case already.
struct Headers<'a>(&'a [(String, String)]);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _};

    use super::*;

    #[test]
    fn a_full_queue_drops_spans_and_makes_nobody_wait() {
        let (queue, mut spans) = Queue::new(2);
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        for name in ["first", "second", "third"] {
            tracer.start(name).end();
        }
        let mut kept = || spans.try_recv().ok().map(|span| span.name);
        assert_eq!((kept(), kept()), (Some("first".into()), Some("second".into())));
        assert_eq!(kept(), None, "the third was dropped");
    }
}
