//! AWS Glue Data Catalog: its calls (JSON 1.1, signed by `object_store`).

use std::time::Duration;

use object_store::ClientOptions;
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpClient, HttpConnector, HttpRequest};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};
use url::Url;

use super::glue_table::{is_same_table, is_up_to_date, table_input};
use super::names::{CatalogName, LEAVE_OUT_HINT};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::redact::SafeUrl;
use crate::sink::CatalogEntry;
use crate::store::{AwsAccount, Connector, StoreOptions, aws_account, endpoint};

/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts for a request that fails for a while.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

const NOT_FOUND: &str = "EntityNotFoundException";
const EXISTS: &str = "AlreadyExistsException";

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The catalog had no such table.
    Created,
    /// The entry was out of date.
    Updated,
    /// The entry was up to date.
    Unchanged,
}

/// The data catalog of an AWS account in a region.
pub(super) struct Glue {
    http: HttpClient,
    account: AwsAccount,
    region: String,
    endpoint: Url,
    /// Another account's catalog.
    catalog_id: Option<String>,
}

/// Why a call failed.
struct CallError {
    /// The code that Glue returned, such as `EntityNotFoundException`.
    code: Option<String>,
    error: Error,
}

impl CallError {
    fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

impl Glue {
    pub(super) fn open(options: &[String], target: &Url, store: &StoreOptions) -> Result<Self> {
        if !matches!(target.scheme(), "s3" | "s3a") {
            return Err(
                Error::new(Kind::Unsupported, "AWS Glue lists tables in S3, but the target is elsewhere").hint(LEAVE_OUT_HINT)
            );
        }
        let account = aws_account(target, store, "GLUE")?;
        let (mut region, mut at, mut catalog_id) = (account.region.clone(), account.endpoint.clone(), None);
        for option in options {
            match option.split_once('=') {
                Some(("region", value)) => region = Some(value.to_owned()),
                Some(("endpoint", value)) => at = Some(value.to_owned()),
                Some(("catalog_id", value)) => catalog_id = Some(value.to_owned()),
                _ => {
                    return Err(Error::new(Kind::Usage, "The catalog has no such option")
                        .with_field("option", option.split('=').next().unwrap_or_default())
                        .hint("its options are region, endpoint and catalog_id, as in --catalog-option region=eu-central-1"));
                }
            }
        }
        let region = region.filter(|region| is_region(region)).ok_or_else(|| {
            Error::new(Kind::Usage, "The region of AWS Glue is unknown")
                .hint("set AWS_REGION, or give --catalog-option region=eu-central-1")
        })?;
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let at = at.unwrap_or_else(|| format!("https://glue.{region}.{domain}"));
        let endpoint = endpoint(&at, false)?;
        let client: ClientOptions = Connector::options(endpoint.scheme() == "http");
        let connector = Connector::new(store.ca_bundle.as_deref(), Some(&endpoint))?;
        let http = connector.connect(&client).context(Kind::Usage, "The client of the catalog cannot be set up")?;
        Ok(Self { http, account, region, endpoint, catalog_id })
    }

    pub(super) fn identity(&self) -> String {
        let host = self.endpoint.host_str().unwrap_or_default();
        format!("glue {} {host} {}", self.region, self.catalog_id.as_deref().unwrap_or_default())
    }

    pub(super) async fn check(&self) -> Result<()> {
        self.call("GetDatabases", json!({"MaxResults": 1})).await.map(drop).map_err(|failure| failure.error)
    }

    pub(super) async fn register(&self, name: &CatalogName, entry: &CatalogEntry) -> Result<Registered> {
        let registered = self.create_or_update(name, entry).await;
        registered.with_field("database", &name.database).with_field("catalog_table", &name.table)
    }

    async fn create_or_update(&self, name: &CatalogName, entry: &CatalogEntry) -> Result<Registered> {
        let Some(present) = self.table(name).await? else {
            if self.create(name, entry).await? {
                return Ok(Registered::Created);
            }
            // Another run has created it meanwhile.
            let present = self.table(name).await?.unwrap_or_default();
            return self.update(name, entry, &present).await;
        };
        self.update(name, entry, &present).await
    }

    /// The existing table; `None` if there is none, or no database.
    async fn table(&self, name: &CatalogName) -> Result<Option<Value>> {
        match self.call("GetTable", json!({"DatabaseName": name.database, "Name": name.table})).await {
            Ok(mut response) => Ok(Some(response["Table"].take())),
            Err(failure) if failure.is(NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure.error),
        }
    }

    /// Creates the table, and its database if there is none. Returns `false` if the table exists.
    async fn create(&self, name: &CatalogName, entry: &CatalogEntry) -> Result<bool> {
        let input = table_input(entry, &name.table, None);
        let create = || self.call("CreateTable", json!({"DatabaseName": name.database, "TableInput": input}));
        let created = match create().await {
            Err(failure) if failure.is(NOT_FOUND) => {
                self.create_database(&name.database).await?;
                create().await
            }
            other => other,
        };
        match created {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(EXISTS) => Ok(false),
            Err(failure) => Err(failure.error),
        }
    }

    async fn create_database(&self, name: &str) -> Result<()> {
        match self.call("CreateDatabase", json!({"DatabaseInput": {"Name": name}})).await {
            Err(failure) if !failure.is(EXISTS) => Err(failure.error),
            // Tables of a run are registered at the same time.
            _ => Ok(()),
        }
    }

    async fn update(&self, name: &CatalogName, entry: &CatalogEntry, present: &Value) -> Result<Registered> {
        if !is_same_table(present, entry) {
            let location = present["StorageDescriptor"]["Location"].as_str().unwrap_or_default().to_owned();
            return Err(Error::new(Kind::Target, "The catalog has another table of this name")
                .with_field("location", location)
                .hint("drop it there, or choose other names with --catalog-database and --catalog-table"));
        }
        let input = table_input(entry, &name.table, Some(present));
        if is_up_to_date(present, &input) {
            return Ok(Registered::Unchanged);
        }
        // Glue keeps a limited number of versions of a table, and no reader needs them.
        let arguments = json!({"DatabaseName": name.database, "TableInput": input, "SkipArchive": true});
        self.call("UpdateTable", arguments).await.map(|_| Registered::Updated).map_err(|failure| failure.error)
    }

    /// Calls an action. Repeats it if it fails for a while.
    async fn call(&self, action: &'static str, mut body: Value) -> std::result::Result<Value, CallError> {
        if let Some(id) = &self.catalog_id {
            body["CatalogId"] = id.as_str().into();
        }
        let body = body.to_string();
        let mut attempt = 1;
        loop {
            let failure = match self.send(action, body.clone()).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            if attempt == ATTEMPTS || !failure.error.kind().is_transient() {
                return Err(CallError { error: failure.error.with_field("action", action), ..failure });
            }
            tracing::debug!(action, error = %failure.error, attempt, "Repeating a request to AWS Glue");
            tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
            attempt += 1;
        }
    }

    async fn send(&self, action: &'static str, body: String) -> std::result::Result<Value, CallError> {
        let unreachable = |cause: Error| CallError { code: None, error: cause };
        let failed = |cause: crate::error::BoxError| {
            unreachable(
                Error::new(Kind::Unavailable, "AWS Glue cannot be reached")
                    .with_field("endpoint", SafeUrl::new(self.endpoint.clone()))
                    .caused_by(cause),
            )
        };
        let credential = self.account.credentials.get_credential().await.map_err(|error| {
            let message = "The credentials for AWS Glue cannot be obtained";
            unreachable(Error::new(Kind::Target, message).caused_by(error))
        })?;
        let mut request = HttpRequest::new(body.into());
        *request.method_mut() = reqwest::Method::POST;
        *request.uri_mut() = self.endpoint.as_str().parse().map_err(|_| failed("the endpoint is not a URL".into()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        if let Ok(value) = HeaderValue::from_str(&format!("AWSGlue.{action}")) {
            headers.insert(HeaderName::from_static("x-amz-target"), value);
        }
        AwsAuthorizer::new(&credential, "glue", &self.region).authorize(&mut request, None);
        let answer = async {
            let response = self.http.execute(request).await?;
            let status = response.status();
            Ok::<_, object_store::client::HttpError>((status, response.into_body().bytes().await?))
        };
        let (status, bytes) = match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(answered) => answered.map_err(|error| failed(Box::new(error)))?,
            Err(elapsed) => return Err(failed(Box::new(elapsed))),
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() { Ok(value) } else { Err(refusal(status.as_u16(), &value)) }
    }
}

/// The error of a response that is not a success.
fn refusal(status: u16, body: &Value) -> CallError {
    let code = body["__type"].as_str().map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
    let reason = body["Message"].as_str().or(body["message"].as_str()).unwrap_or_default().to_owned();
    let is_busy = |code: &str| {
        ["ThrottlingException", "InternalServiceException", "OperationTimeoutException", "ConcurrentModificationException"]
            .contains(&code)
    };
    let is_temporary = status >= 500 || status == 429 || code.as_deref().is_some_and(is_busy);
    let kind = if is_temporary { Kind::Unavailable } else { Kind::Target };
    let error =
        Error::new(kind, "AWS Glue refused a request").with_field("code", code.clone().unwrap_or_else(|| status.to_string()));
    let error = if reason.is_empty() { error } else { error.with_field("reason", reason) };
    let error = match code.as_deref() {
        Some("AccessDeniedException") => error.hint(
            "allow glue:GetTable, glue:CreateTable, glue:UpdateTable and glue:CreateDatabase; with Lake Formation, grant ALTER on the table",
        ),
        Some("UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException") => {
            error.hint("check the AWS credentials, the region and the clock of this machine")
        }
        _ => error,
    };
    CallError { code, error }
}

/// Whether a text has the form of a region, which becomes part of a host name.
fn is_region(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
