//! Reaching a cluster from the command line: over the gateway of any of its nodes.

use std::time::Duration;

use clinch_client::HttpClient;

use super::exit::{Failure, Outcome};

/// Where the cluster is.
#[derive(Debug, clap::Args)]
pub(crate) struct Remote {
    /// The gateway of any node
    #[arg(
        long,
        value_name = "URL",
        env = "CLINCH_ENDPOINT",
        default_value = "http://127.0.0.1:6420"
    )]
    gateway: String,
    /// A token, if the gateway wants one
    #[arg(long, value_name = "TOKEN", env = "CLINCH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 70, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Remote {
    pub(crate) fn client(&self) -> Outcome<HttpClient> {
        let base = base(&self.gateway)?;
        Ok(HttpClient::new(
            &base,
            self.token.clone(),
            Duration::from_secs(self.timeout),
        ))
    }
}

/// The base URL of a gateway, given as one or as `host:port`.
pub(crate) fn base(gateway: &str) -> Outcome<String> {
    let shown = without_credentials(gateway);
    let refused = |why: &str| Failure::usage(format!("--gateway {shown}: {why}"));
    let url = match gateway.split_once("://") {
        Some(("http", _)) => gateway.to_owned(),
        Some(("https", _)) => return Err(refused("TLS is not spoken here: go through the node's own port")),
        Some(_) => return Err(refused("must be http://HOST:PORT")),
        None => format!("http://{gateway}"),
    };
    let uri: http::Uri = url.parse().map_err(|error| refused(&format!("{error}")))?;
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(url),
        _ => Err(refused("must be http://HOST:PORT")),
    }
}

/// An address may carry a token (`http://namespace:token@host:port`), and is printed.
pub(crate) fn without_credentials(url: &str) -> String {
    match url
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)))
    {
        Some((scheme, bare)) => format!("{scheme}://{bare}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_refused_is_shown_without_its_token() {
        let refused = base("https://default:a-secret@host:1").unwrap_err();
        let text = format!("{:#}", refused.error);
        assert!(
            text.contains("https://host:1") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn a_gateway_is_a_url_or_an_address() {
        assert_eq!(base("127.0.0.1:6420").unwrap(), "http://127.0.0.1:6420");
        assert_eq!(base("http://[::1]:6420").unwrap(), "http://[::1]:6420");
        for bad in ["https://a", "ftp://a", "", "http://", "a b"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
