//! The HTTP client of object stores: proxies and root certificates as for the service, and timeouts for large bodies.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use url::{Host, Url};

use crate::error::{Error, ErrorContext, Kind, Result};
use crate::tls_roots::read_bundle;

const USER_AGENT: &str = concat!("daplake/", env!("CARGO_PKG_VERSION"));
/// The connect timeout of stores. For the metadata service of a machine, which may not exist, `object_store` sets a shorter one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The read timeout. It also bounds the time for sending one part: 5 MiB in this time are 60 KB/s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Creates the HTTP clients of a store.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    roots: Vec<reqwest::Certificate>,
    is_loopback: bool,
}

impl Connector {
    /// For a store at `endpoint` (`None`: the provider's own), with additional root certificates.
    pub(crate) fn new(ca_bundle: Option<&Path>, endpoint: Option<&Url>) -> Result<Self> {
        let roots = match ca_bundle {
            Some(path) => read_bundle(path).with_field("ca_bundle", path.display())?,
            None => Vec::new(),
        };
        Ok(Self { roots, is_loopback: endpoint.is_some_and(is_loopback) })
    }

    /// The client options for `object_store`.
    pub(crate) fn options(allow_http: bool) -> ClientOptions {
        ClientOptions::new().with_allow_http(allow_http).with_connect_timeout(CONNECT_TIMEOUT).with_timeout_disabled()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let option = |key| options.get_config_value(&key);
        // The options can be read only one by one.
        let seconds = option(ClientConfigKey::ConnectTimeout).and_then(|text| text.split(' ').next()?.parse().ok());
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(seconds.map_or(CONNECT_TIMEOUT, Duration::from_secs))
            .read_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .https_only(option(ClientConfigKey::AllowHttp).as_deref() != Some("true"))
            .http1_only()
            // Lengths and ranges refer to the stored bytes.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate();
        for root in &self.roots {
            builder = builder.add_root_certificate(root.clone());
        }
        if self.is_loopback {
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })?;
        Ok(HttpClient::new(Client(client)))
    }
}

#[derive(Debug)]
struct Client(reqwest::Client);

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let mut response = self.0.call(request).await?;
        // Reported as a server error, it would be retried for minutes.
        if response.status().as_u16() == 501 {
            *response.status_mut() = reqwest::StatusCode::METHOD_NOT_ALLOWED;
        }
        Ok(response)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Parses an endpoint. Plain HTTP is accepted only for this machine or if `allow_http` is set: rows are personal data.
pub(crate) fn endpoint(text: &str, allow_http: bool) -> Result<Url> {
    let hint = "write https://HOST:PORT";
    let url = Url::parse(text).map_err(|error| {
        Error::new(Kind::Usage, "The endpoint of the object store is not a URL").caused_by(error).hint(hint)
    })?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_http || is_loopback(&url) => Ok(url),
        "http" => Err(Error::new(Kind::Usage, "The endpoint of the object store is not encrypted")
            .with_field("endpoint", crate::redact::SafeUrl::new(url))
            .hint("use https, or allow plain HTTP with --store-option allow_http=true")),
        _ => Err(Error::new(Kind::Usage, "The endpoint of the object store is not an http or https URL").hint(hint)),
    }
}
