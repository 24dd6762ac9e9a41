//! Google Cloud Storage. Commits use `x-goog-if-generation-match: 0`, which every bucket supports.

use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use url::Url;

use super::http::{Connector, endpoint};
use super::options::{StoreOptions, unknown};
use super::remote::RemoteStore;
use crate::error::{Kind, Result, ResultExt};

const KNOWN: &str = "service_account (a file), application_credentials (a file), endpoint, skip_signature, allow_http, max_retries, \
     retry_timeout";

/// Opens the store of a bucket. Does not connect.
pub(super) fn open(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in options.variables("GOOGLE_") {
        if let Ok(key) = GoogleConfigKey::from_str(&name.to_ascii_lowercase())
            && is_free(&key)
        {
            builder = builder.with_config(key, value);
        }
    }
    for (name, value) in options.options_except(&["endpoint"]) {
        match GoogleConfigKey::from_str(name) {
            Ok(key) if is_free(&key) => builder = builder.with_config(key, value),
            _ => return Err(unknown(name, KNOWN)),
        }
    }
    let at = options.option("endpoint").map(|text| endpoint(text, options.allow_http("GOOGLE_ALLOW_HTTP"))).transpose()?;
    if let Some(at) = &at {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, at.as_str().trim_end_matches('/'));
    }
    let store = builder
        .with_url(url.as_str())
        .with_retry(options.retry()?)
        // The metadata service of a machine uses plain HTTP; the store itself only if its endpoint says so.
        .with_client_options(Connector::options(true))
        .with_http_connector(Connector::new(options.ca_bundle.as_deref(), at.as_ref())?)
        .build()
        .context(Kind::Usage, "The object store cannot be set up")
        .map_err(|error| error.hint("set GOOGLE_APPLICATION_CREDENTIALS to a credentials file"))?;
    Ok(Arc::new(RemoteStore::new(store)))
}

fn is_free(key: &GoogleConfigKey) -> bool {
    !matches!(key, GoogleConfigKey::Bucket | GoogleConfigKey::Client(_))
}
