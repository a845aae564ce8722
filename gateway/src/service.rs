//! From a request to the module that answers it. Paths are taken apart by hand: three look-ups instead of a router,
//! and the gateway forms (`address`) are no fixed patterns anyway.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, ORIGIN};
use http::{HeaderValue, Method};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::{self, Address};
use crate::backend::Backend;
use crate::config::GatewayConfig;
use crate::error::HttpError;
use crate::metric_names::RequestMetrics;
use crate::socket::SocketTasks;
use crate::visitors::Visitor;
use crate::{action, cors, manager, namespaces, plain, socket};

/// A client's name for one request; handed back, so that it can be found in both logs.
const RAY_ID: HeaderName = HeaderName::from_static("x-rivet-ray-id");
/// The token of a gateway request.
const TOKEN: HeaderName = HeaderName::from_static("x-rivet-token");

/// The gateway as a router: one handler for every path, to be served by [`serve`](crate::serve).
///
/// Metrics go to the recorder that is installed when this is called. `config` must have passed
/// [`GatewayConfig::validate`].
pub fn router(backend: Arc<dyn Backend>, config: GatewayConfig) -> Router {
    routed(backend, config, None)
}

/// The gateway as a router inside the web server of an application. Its sockets run on `tracker` and end with `stop`. What
/// is counted by connection or by address is the server's: those limits do not hold here.
pub fn embedded(
    backend: Arc<dyn Backend>,
    config: GatewayConfig,
    stop: CancellationToken,
    tracker: TaskTracker,
) -> Router {
    let tasks = SocketTasks::new(&config, stop, tracker, Visitor::unlimited());
    routed(backend, config, Some(tasks))
}

fn routed(backend: Arc<dyn Backend>, config: GatewayConfig, tasks: Option<SocketTasks>) -> Router {
    let gateway = Arc::new(Gateway::new(backend, config));
    Router::new().fallback(move |mut request: Request| {
        if let Some(tasks) = &tasks
            && SocketTasks::are_needed_by(&request)
        {
            request.extensions_mut().insert(tasks.clone());
        }
        let gateway = gateway.clone();
        async move { gateway.answer(request).await }
    })
}

/// What all routes share.
pub(crate) struct Gateway {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: RequestMetrics,
    /// Bodies above the size of an action's.
    pub(crate) large_bodies: Arc<Semaphore>,
    /// WebSockets, and answers that are streamed.
    pub(crate) sockets: Arc<Semaphore>,
    in_flight: Semaphore,
}

impl Gateway {
    fn new(backend: Arc<dyn Backend>, config: GatewayConfig) -> Self {
        Self {
            metrics: RequestMetrics::new(),
            large_bodies: Arc::new(Semaphore::new(config.max_large_bodies)),
            sockets: Arc::new(Semaphore::new(config.max_sockets)),
            in_flight: Semaphore::new(config.max_in_flight),
            backend,
            config,
        }
    }

    async fn answer(self: &Arc<Self>, request: Request) -> Response {
        let origin = request.headers().get(ORIGIN).cloned();
        let ray = request.headers().get(RAY_ID).cloned();
        let mut response = if request.method() == Method::OPTIONS {
            cors::preflight(request.headers())
        } else if let Some(Err(refused)) = request.extensions().get().map(Visitor::take) {
            self.metrics.shed.increment(1);
            HttpError::rate_limit(&refused).into_response()
        } else if socket::is_upgrade(&request) {
            socket::accept(self, request).unwrap_or_else(HttpError::into_response)
        } else {
            self.dispatch(request)
                .await
                .unwrap_or_else(HttpError::into_response)
        };
        cors::complete(&mut response, origin, &self.config.allowed_origins);
        if let Some(ray) = ray {
            response.headers_mut().insert(RAY_ID, ray);
        }
        self.metrics.answered(response.status());
        response
    }

    async fn dispatch(&self, request: Request) -> Result<Response, HttpError> {
        match address::parse(request.uri(), request.headers())? {
            Some(address) => self.to_actor(request, address).await,
            None if request.uri().path().starts_with("/actors") => {
                let _permit = self.admit()?;
                manager::answer(self, request).await
            }
            None if request.uri().path() == namespaces::PATH => {
                let _permit = self.admit()?;
                namespaces::answer(self, request).await
            }
            None => plain::answer(self, &request),
        }
    }

    async fn to_actor(&self, mut request: Request, address: Address) -> Result<Response, HttpError> {
        let _permit = self.admit()?;
        // Whoever looks into an actor because too much is asked of it need not wait in that line.
        if !address.path.starts_with("/inspector/")
            && let Some(visitor) = request.extensions().get::<Visitor>()
        {
            let asking = visitor.ask(&address.who).map_err(|refused| {
                self.metrics.shed.increment(1);
                HttpError::rate_limit(&refused)
            })?;
            // Held as long as the request, and by the body of an answer that is streamed.
            if let Some(asking) = asking {
                request.extensions_mut().insert(asking);
            }
        }
        action::answer(self, request, address).await
    }

    /// Health and metrics are answered without this: they are wanted most when all else is too much.
    fn admit(&self) -> Result<SemaphorePermit<'_>, HttpError> {
        self.in_flight.try_acquire().map_err(|_| {
            self.metrics.shed.increment(1);
            HttpError::overloaded("the gateway of this node", self.config.max_in_flight)
        })
    }
}

/// The token of a request to an actor, when the address carries none: `x-rivet-token`, else `Authorization`.
pub(crate) fn actor_token(headers: &HeaderMap) -> Option<&str> {
    match headers.get(TOKEN) {
        Some(token) => token.to_str().ok(),
        None => bearer(headers),
    }
}

/// The token of a request to the manager API.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// An answer with a body.
pub(crate) fn respond(content_type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
