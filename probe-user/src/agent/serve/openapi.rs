//! The description of the API for programs, made from the code that answers.

use axum::{http::header, response::IntoResponse};
use utoipa::OpenApi;

use super::{alerts, metrics, routes, stream};
use crate::event::Event;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pipestall",
        description = "The node agent's API, over its unix socket. Root and the group named by [api] group may \
                       read; POST takes root, or the group named by [api] operators.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        routes::status,
        routes::stalls,
        routes::stall,
        routes::explain,
        routes::rules,
        routes::kill,
        routes::reload,
        alerts::list,
        alerts::retry,
        alerts::discard,
        stream::events,
        metrics::serve,
        routes::healthz,
        routes::readyz
    ),
    components(schemas(Event))
)]
struct Document;

/// The document, as JSON.
#[must_use]
pub fn document() -> String {
    let mut json = Document::openapi().to_pretty_json().unwrap_or_default();
    json.push('\n');
    json
}

pub(super) async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_that_is_shipped_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/openapi.json");
        if std::env::var_os("PIPESTALL_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let shipped = std::fs::read_to_string(path).unwrap();
        assert!(
            shipped == document(),
            "deploy/openapi.json is out of date; PIPESTALL_BLESS=1 writes it anew"
        );
    }
}
