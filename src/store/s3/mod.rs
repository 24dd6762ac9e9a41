//! Amazon S3 and compatible stores: endpoints and credentials.

mod profile;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider, S3ConditionalPut};
use object_store::{CredentialProvider, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use serde::Deserialize;
use url::Url;

use self::profile::Profile;
use super::http::{Connector, endpoint};
use super::options::{StoreOptions, unknown};
use super::remote::RemoteStore;
use crate::error::{Error, Kind, Result, ResultExt};

const KNOWN: &str = "region, endpoint, addressing (path or virtual), profile, allow_http, max_retries, retry_timeout, role_arn, \
     web_identity_token_file, server_side_encryption, sse_kms_key_id, request_payer, unsigned_payload, checksum_algorithm, \
     skip_signature, s3_express, imdsv1_fallback";

/// Options that are handled here rather than by `object_store`.
const HANDLED: &[&str] = &["region", "default_region", "endpoint", "endpoint_url", "endpoint_url_s3", "addressing", "profile"];

/// Retries of the credentials service of a machine or container, which responds at once or does not exist.
const ROLE_RETRY: RetryConfig = RetryConfig {
    backoff: object_store::BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        base: 2.0,
    },
    max_retries: 3,
    retry_timeout: Duration::from_secs(10),
};

/// Opens the store of a bucket. Does not connect.
pub(super) fn open(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let profile = profile::read(options)?;
    let builder = builder(url, options, &profile)?;
    let builder = with_credentials(builder, options, &profile)?;
    let store = builder.build().context(Kind::Usage, "The object store cannot be set up")?;
    Ok(Arc::new(RemoteStore::new(store)))
}

/// An account of Amazon Web Services, for services other than S3.
#[derive(Clone)]
pub(crate) struct AwsAccount {
    pub(crate) credentials: AwsCredentialProvider,
    /// The region, if a setting names it.
    pub(crate) region: Option<String>,
    /// The endpoint of the service, if a setting names it.
    pub(crate) endpoint: Option<String>,
}

/// The account that opens a bucket, with the endpoint of another service, such as `GLUE`. Does not connect.
pub(crate) fn aws_account(bucket: &Url, options: &StoreOptions, service: &str) -> Result<AwsAccount> {
    let profile = profile::read(options)?;
    let builder = with_credentials(builder(bucket, options, &profile)?, options, &profile)?;
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let endpoint = options.variable(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| options.variable("AWS_ENDPOINT_URL"));
    let endpoint = endpoint.map(str::to_owned);
    let store = builder.build().context(Kind::Usage, "The object store cannot be set up")?;
    Ok(AwsAccount { credentials: Arc::clone(store.credentials()), region, endpoint })
}

/// The builder without credentials.
fn builder(url: &Url, options: &StoreOptions, profile: &Profile) -> Result<AmazonS3Builder> {
    let bucket = url.host_str().unwrap_or_default();
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for (name, value) in options.variables("AWS_") {
        if let Ok(key) = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase())
            && is_free(&key)
            && !is_credential(&key)
        {
            builder = builder.with_config(key, value);
        }
    }
    for (name, value) in options.options_except(HANDLED) {
        match AmazonS3ConfigKey::from_str(name) {
            Ok(key) if is_free(&key) => builder = builder.with_config(key, value),
            _ => return Err(unknown(name, KNOWN)),
        }
    }

    let first = |names: &[&str], variables: &[&str], in_profile: &str| {
        let option = names.iter().find_map(|name| options.option(name));
        let variable = || variables.iter().find_map(|name| options.variable(name));
        option.or_else(variable).or_else(|| profile.get(in_profile)).map(str::to_owned)
    };
    if let Some(region) = first(&["region", "default_region"], &["AWS_REGION", "AWS_DEFAULT_REGION"], "region") {
        builder = builder.with_region(region);
    }
    let at = first(
        &["endpoint", "endpoint_url", "endpoint_url_s3"],
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
        "endpoint_url",
    );
    let at = at.map(|text| endpoint(&text, options.allow_http("AWS_ALLOW_HTTP"))).transpose()?;
    let addressing = match options.option("addressing").or_else(|| profile.get("addressing_style")) {
        None | Some("auto") => None,
        Some("virtual") => Some(true),
        Some("path") => Some(false),
        Some(_) => {
            return Err(Error::new(Kind::Usage, "Unknown addressing style of the object store").hint("use `path` or `virtual`"));
        }
    };
    // Amazon's wildcard certificate does not cover bucket names with dots.
    let is_virtual = addressing.unwrap_or(at.is_none() && !bucket.contains('.'));
    // An option `virtual_hosted_style_request` was passed to the builder above and follows the same rule.
    let is_virtual = builder
        .get_config_value(&AmazonS3ConfigKey::VirtualHostedStyleRequest)
        .filter(|text| addressing.is_none() && text == "true")
        .is_some()
        || is_virtual;
    builder = builder.with_virtual_hosted_style_request(is_virtual);
    if let Some(at) = &at {
        builder = builder.with_endpoint(bucket_endpoint(at, bucket, is_virtual));
    }
    let connector = Connector::new(options.ca_bundle.as_deref(), at.as_ref())?;
    Ok(builder
        .with_retry(options.retry()?)
        .with_client_options(Connector::options(at.is_some_and(|at| at.scheme() == "http")))
        .with_http_connector(connector)
        .with_conditional_put(S3ConditionalPut::ETagMatch))
}

/// The endpoint in the form that `object_store` expects: in virtual style with the bucket in the host name.
fn bucket_endpoint(at: &Url, bucket: &str, is_virtual: bool) -> String {
    let mut at = at.clone();
    if is_virtual
        && let Some(host) = at.host_str().map(str::to_owned)
        && !host.starts_with(&format!("{bucket}."))
    {
        // Fails only for IP addresses, which stay unchanged.
        let _ = at.set_host(Some(&format!("{bucket}.{host}")));
    }
    at.as_str().trim_end_matches('/').to_owned()
}

/// Whether users may set an option of `object_store`. Excluded are those that make commits safe, the bucket, and the HTTP client's.
fn is_free(key: &AmazonS3ConfigKey) -> bool {
    use AmazonS3ConfigKey::*;
    !matches!(key, Bucket | ConditionalPut | CopyIfNotExists | Client(_) | Endpoint | S3Endpoint | Region | DefaultRegion)
}

fn is_credential(key: &AmazonS3ConfigKey) -> bool {
    use AmazonS3ConfigKey::*;
    matches!(key, AccessKeyId | SecretAccessKey | Token | WebIdentityTokenFile | RoleArn | RoleSessionName)
}

/// Finds credentials in the usual order: environment variables, the profile, then the roles of web identity, container and machine. A
/// profile that is set as an option comes first.
fn with_credentials(mut builder: AmazonS3Builder, options: &StoreOptions, profile: &Profile) -> Result<AmazonS3Builder> {
    if builder.get_config_value(&AmazonS3ConfigKey::SkipSignature).as_deref() == Some("true") {
        return Ok(builder);
    }
    let keys = (options.variable("AWS_ACCESS_KEY_ID"), options.variable("AWS_SECRET_ACCESS_KEY"));
    match keys {
        _ if options.option("profile").is_some() => {}
        (Some(id), Some(secret)) => {
            let token = options.variable("AWS_SESSION_TOKEN");
            return Ok(static_keys(builder, id, secret, token));
        }
        (None, None) => {}
        (Some(_), None) => return Err(half("AWS_SECRET_ACCESS_KEY")),
        (None, Some(_)) => return Err(half("AWS_ACCESS_KEY_ID")),
    }
    if let Some(credential) = profile_keys(profile) {
        let current = Mutex::new((profile::stamps(options), Arc::new(credential)));
        return Ok(builder.with_credentials(Arc::new(ProfileCredentials { options: options.clone(), current })));
    }
    if let Some(command) = profile.get("credential_process") {
        return Ok(builder.with_credentials(Arc::new(ProcessCredentials::new(command))));
    }
    let by_aws_tools = ["sso_session", "sso_start_url", "source_profile", "credential_source", "login_session"];
    if let Some(found) = by_aws_tools.iter().find(|name| profile.get(name).is_some()) {
        return Err(Error::new(Kind::Target, "The AWS profile uses a source of credentials that only the AWS tools support")
            .with_field("setting", found)
            .hint("export them: eval \"$(aws configure export-credentials --format env)\"; or, for unattended runs, add a profile with `credential_process = aws configure export-credentials --profile NAME`"));
    }
    for (key, variable, in_profile) in [
        (AmazonS3ConfigKey::WebIdentityTokenFile, "AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file"),
        (AmazonS3ConfigKey::RoleArn, "AWS_ROLE_ARN", "role_arn"),
        (AmazonS3ConfigKey::RoleSessionName, "AWS_ROLE_SESSION_NAME", "role_session_name"),
    ] {
        if builder.get_config_value(&key).is_none()
            && let Some(value) = options.variable(variable).or_else(|| profile.get(in_profile))
        {
            builder = builder.with_config(key, value);
        }
    }
    let has = |key| builder.get_config_value(&key).is_some();
    let has_role = has(AmazonS3ConfigKey::WebIdentityTokenFile)
        || has(AmazonS3ConfigKey::ContainerCredentialsRelativeUri)
        || has(AmazonS3ConfigKey::ContainerCredentialsFullUri);
    if !has_role && options.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(Error::new(Kind::Target, "No credentials for the object store were found")
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"));
    }
    let roles = builder.clone().with_retry(ROLE_RETRY).build().context(Kind::Usage, "The object store cannot be set up")?;
    Ok(builder.with_credentials(Arc::clone(roles.credentials())))
}

fn half(missing: &'static str) -> Error {
    Error::new(Kind::Target, "The credentials of the object store are incomplete").with_field("variable", missing)
}

fn static_keys(builder: AmazonS3Builder, id: &str, secret: &str, token: Option<&str>) -> AmazonS3Builder {
    let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
    match token {
        Some(token) => builder.with_token(token),
        None => builder,
    }
}

fn profile_keys(profile: &Profile) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: profile.get("aws_access_key_id")?.to_owned(),
        secret_key: profile.get("aws_secret_access_key")?.to_owned(),
        token: profile.get("aws_session_token").map(str::to_owned),
    })
}

/// The keys of a profile. They are read again when the files change, since a run may outlive keys that another program renews.
struct ProfileCredentials {
    options: StoreOptions,
    current: Mutex<(profile::Stamps, Arc<AwsCredential>)>,
}

impl std::fmt::Debug for ProfileCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProfileCredentials")
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock();
        let stamps = profile::stamps(&self.options);
        if current.0 != stamps {
            // A file that is being written is read at the next request.
            match profile::read(&self.options).map(|profile| profile_keys(&profile)) {
                Ok(Some(credential)) => *current = (stamps, Arc::new(credential)),
                Ok(None) => tracing::debug!("The AWS profile currently has no keys"),
                Err(error) => tracing::debug!(%error, "The AWS profile currently cannot be read"),
            }
        }
        Ok(Arc::clone(&current.1))
    }
}

/// The time at which credentials are renewed: 5 minutes before they expire, or in the last quarter of a shorter life. Credentials that are
/// already expired, perhaps because of a wrong clock, are used for a short time, so that not every request runs the program.
fn renewal(now: DateTime<Utc>, expiration: DateTime<Utc>) -> DateTime<Utc> {
    let life = (expiration - now).max(chrono::TimeDelta::zero());
    let margin = (life / 4).min(chrono::TimeDelta::minutes(5));
    (expiration - margin).max(now + chrono::TimeDelta::seconds(1))
}

/// Credentials, and when they must be renewed.
type Renewable = (Arc<AwsCredential>, Option<DateTime<Utc>>);

/// Credentials from a program (`credential_process`), renewed shortly before they expire. The program runs once at a time; concurrent
/// requests wait for it.
struct ProcessCredentials {
    command: String,
    current: tokio::sync::Mutex<Option<Renewable>>,
}

impl std::fmt::Debug for ProcessCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProcessCredentials")
    }
}

/// The output of the program.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<DateTime<Utc>>,
}

impl ProcessCredentials {
    fn new(command: &str) -> Self {
        Self { command: command.to_owned(), current: tokio::sync::Mutex::new(None) }
    }

    /// Errors do not contain the output of the program, which may contain a secret.
    fn run(command: &str) -> Result<Printed> {
        let hint = "run the profile's `credential_process` by hand to see its output";
        // The variables of the AWS tools, without other secrets.
        let mut program = crate::child::shell(command, &["AWS_*"]);
        program.stdin(std::process::Stdio::null());
        let output = program.output();
        let output = output.context(Kind::Target, "The `credential_process` of the AWS profile cannot be started")?;
        if !output.status.success() {
            return Err(Error::new(Kind::Target, "The `credential_process` of the AWS profile failed")
                .with_field("status", output.status)
                .hint(hint));
        }
        serde_json::from_slice(&output.stdout).map_err(|_| {
            Error::new(Kind::Target, "The `credential_process` of the AWS profile printed unexpected output").hint(hint)
        })
    }
}

#[async_trait]
impl CredentialProvider for ProcessCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock().await;
        if let Some((credential, renew_at)) = &*current
            && renew_at.is_none_or(|renew_at| Utc::now() < renew_at)
        {
            return Ok(Arc::clone(credential));
        }
        let command = self.command.clone();
        let printed = tokio::task::spawn_blocking(move || Self::run(&command)).await?;
        let printed = printed.map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        let credential = Arc::new(AwsCredential {
            key_id: printed.access_key_id,
            secret_key: printed.secret_access_key,
            token: printed.session_token,
        });
        *current = Some((Arc::clone(&credential), printed.expiration.map(|expiration| renewal(Utc::now(), expiration))));
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn short_lived_credentials_are_used_for_most_of_their_life() {
        let now = Utc::now();
        let used_for = |life: TimeDelta| renewal(now, now + life) - now;
        assert_eq!(used_for(TimeDelta::hours(1)), TimeDelta::minutes(55));
        assert_eq!(used_for(TimeDelta::minutes(4)), TimeDelta::minutes(3));
        assert_eq!(used_for(TimeDelta::seconds(-10)), TimeDelta::seconds(1));
    }
}
