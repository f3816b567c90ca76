//! Keys: who may come in.

use super::Routes;
use super::answer::{Answer, At, Body, Made, Once, done};
use crate::auth::Caller;
use axum::Json;
use axum::http::StatusCode;
use domain::error::{Code, Error};
use domain::name::Name;
use protocol::api::NewCredential;
use protocol::v1::Minted;
use protocol::wire::Credentials;
use protocol::{Api as _, ApiRead as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn administering() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

/// Make a key; it is shown in this answer and never again, so an `Idempotency-Key` is refused.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", operation_id = "key_create",
    request_body = NewCredential, responses((status = 201, description = "The key.", body = Minted)))]
async fn create(
    caller: Caller,
    Once(key): Once,
    Body(new): Body<NewCredential>,
) -> Answer<Made<Minted>> {
    if key.is_some() {
        // The same answer could not be given again: nobody keeps the secret.
        let text = "a key cannot be made with an Idempotency-Key";
        return Err(Error::new(Code::OutOfRange, text)
            .hint("If the answer was lost, revoke the key that came of it and make another.")
            .into());
    }
    Ok(Made(caller.engine.credential_create(new).await?))
}

/// List the keys, without their secrets.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", operation_id = "key_list",
    responses((status = 200, description = "All of them, revoked ones included.", body = Credentials)))]
async fn list(caller: Caller) -> Answer<Json<Credentials>> {
    let items = caller.engine.credential_list().await?;
    Ok(Json(Credentials { items }))
}

/// Revoke a key: from now on it lets nobody in.
#[utoipa::path(delete, path = "/v1/keys/{key}", tag = "keys", operation_id = "key_revoke",
    params(("key" = String, Path, description = "Its id.")),
    responses((status = 204, description = "It is revoked.")))]
async fn revoke(caller: Caller, At(key): At<Name>) -> Answer<StatusCode> {
    done(caller.engine.credential_revoke(key).await)
}
