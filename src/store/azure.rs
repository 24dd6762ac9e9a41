//! Azure Blob Storage and Data Lake Storage. Commits use `If-None-Match`, which every account supports.

use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use url::Url;

use super::http::{Connector, endpoint};
use super::options::{StoreOptions, unknown};
use super::remote::RemoteStore;
use crate::error::{Kind, Result, ResultExt};

const KNOWN: &str = "account_name, endpoint, client_id, tenant_id, authority_host, federated_token_file, use_azure_cli, \
     use_emulator, msi_endpoint, object_id, skip_signature, allow_http, max_retries, retry_timeout";

/// The public account and key of the emulator.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Variables of the Azure CLI that `object_store` does not support.
const ALIASES: [(&str, AzureConfigKey); 2] =
    [("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName), ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey)];

/// Opens the store of a container. Does not connect.
pub(super) fn open(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in connection_string(options.variable("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default()) {
        builder = builder.with_config(name, value);
    }
    for (name, value) in options.variables("AZURE_") {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, key)| *key);
        if let Some(key) = alias.or_else(|| AzureConfigKey::from_str(&name.to_ascii_lowercase()).ok())
            && is_free(&key)
        {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(value) = options.variable("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(value);
    }
    for (name, value) in options.options_except(&[]) {
        match AzureConfigKey::from_str(name) {
            Ok(key) if is_free(&key) => builder = builder.with_config(key, value),
            _ => return Err(unknown(name, KNOWN)),
        }
    }
    let allow_http = options.allow_http("AZURE_ALLOW_HTTP");
    let is_emulator = builder.get_config_value(&AzureConfigKey::UseEmulator).as_deref() == Some("true");
    let at = builder.get_config_value(&AzureConfigKey::Endpoint);
    let at = at.map(|text| endpoint(&text, allow_http || is_emulator)).transpose()?;
    if let (true, Some(at)) = (is_emulator, &at) {
        // The emulator settings of `object_store` have no endpoint.
        builder = emulator_at(builder, at);
    }
    let is_clear = is_emulator || at.as_ref().is_some_and(|at| at.scheme() == "http");
    let store = builder
        .with_url(url.as_str())
        .with_retry(options.retry()?)
        .with_client_options(Connector::options(is_clear))
        .with_http_connector(Connector::new(options.ca_bundle.as_deref(), at.as_ref())?)
        .build()
        .context(Kind::Usage, "The object store cannot be set up")
        .map_err(|error| error.hint("set the account with AZURE_STORAGE_ACCOUNT_NAME, or in the URL: abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX"))?;
    Ok(Arc::new(RemoteStore::new(store).listing_all(is_emulator)))
}

/// The emulator at an address other than its default: an ordinary endpoint with the account in its path, and the public key unless
/// another one is set.
fn emulator_at(builder: MicrosoftAzureBuilder, at: &Url) -> MicrosoftAzureBuilder {
    let account = builder.get_config_value(&AzureConfigKey::AccountName).unwrap_or_else(|| EMULATOR_ACCOUNT.to_owned());
    let has_credentials = [AzureConfigKey::AccessKey, AzureConfigKey::SasKey, AzureConfigKey::Token, AzureConfigKey::ClientId]
        .iter()
        .any(|key| builder.get_config_value(key).is_some());
    let mut endpoint = at.as_str().trim_end_matches('/').to_owned();
    if !at.path().trim_matches('/').split('/').any(|part| part == account) {
        endpoint = format!("{endpoint}/{account}");
    }
    let builder = builder.with_use_emulator(false).with_endpoint(endpoint);
    let builder = if has_credentials { builder } else { builder.with_access_key(EMULATOR_KEY) };
    builder.with_account(account)
}

fn is_free(key: &AzureConfigKey) -> bool {
    !matches!(key, AzureConfigKey::ContainerName | AzureConfigKey::Client(_))
}

/// Parses a connection string of the Azure portal: `Name=value;...`.
fn connection_string(text: &str) -> Vec<(AzureConfigKey, &str)> {
    let members = text.split(';').filter_map(|member| member.split_once('='));
    let known = members.filter_map(|(name, value)| match name.trim() {
        "AccountName" => Some((AzureConfigKey::AccountName, value)),
        "AccountKey" => Some((AzureConfigKey::AccessKey, value)),
        "SharedAccessSignature" => Some((AzureConfigKey::SasKey, value)),
        "BlobEndpoint" => Some((AzureConfigKey::Endpoint, value)),
        _ => None,
    });
    known.collect()
}
