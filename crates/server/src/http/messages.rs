//! Messages between agents, and their inboxes.

use super::Routes;
use super::answer::{Answer, Asked, At, Body, Ending, Made, Maybe, Once, done};
use crate::auth::Caller;
use crate::http::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::id::MessageId;
use domain::message::{Message, NewMessage};
use domain::name::Name;
use protocol::v1::Delivered;
use protocol::wire::{
    MessageRef, Messages, PageParams, Receive, Received, RequestMessage, SettleMessage,
    Subscription,
};
use protocol::{Api as _, ApiRead as _};
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn reading() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
}

pub(super) fn writing() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(send))
        .routes(routes!(request))
        .routes(routes!(settle))
        .routes(routes!(subscribe, unsubscribe))
        .routes(routes!(receive))
}

/// List messages, oldest first.
#[utoipa::path(get, path = "/v1/messages", tag = "messages", operation_id = "message_list", params(PageParams),
    responses((status = 200, description = "A page; pass the last id as `after` to go on.", body = Messages)))]
async fn list(caller: Caller, Asked(params): Asked<PageParams>) -> Answer<Json<Messages>> {
    let after = params.after.map(|id| id.parse()).transpose()?;
    let items = caller.engine.message_list(after, params.limit).await?;
    Ok(Json(Messages { items }))
}

/// Read a message, with how each recipient's part stands.
#[utoipa::path(get, path = "/v1/messages/{message}", tag = "messages", operation_id = "message_get",
    params(("message" = MessageId, Path, description = "Which.")),
    responses((status = 200, description = "The message.", body = Message)))]
async fn get(caller: Caller, At(message): At<MessageId>) -> Answer<Json<Message>> {
    Ok(Json(caller.engine.message_get(message).await?))
}

/// Send a message.
#[utoipa::path(post, path = "/v1/messages", tag = "messages", operation_id = "message_send",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send again.")),
    request_body = NewMessage, responses((status = 201, description = "Accepted for its recipients.", body = MessageRef)))]
async fn send(
    caller: Caller,
    key: Once,
    Body(mut message): Body<NewMessage>,
) -> Answer<Made<MessageRef>> {
    message.key = key.or(message.key)?;
    let message_id = caller.engine.message_send(message).await?;
    Ok(Made(MessageRef { message_id }))
}

/// Send a message and wait for its answer; a late one stays in the asker's inbox.
#[utoipa::path(post, path = "/v1/messages/request", tag = "messages", operation_id = "message_request",
    request_body = RequestMessage, responses((status = 200, description = "The answer.", body = Delivered)))]
async fn request(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    Body(body): Body<RequestMessage>,
) -> Answer<Json<Delivered>> {
    let wait = Duration::from_millis(body.wait_ms).min(app.limits.wait);
    let answer = caller.engine.message_request(body.message, wait);
    Ok(Json(ending.or_refuse(answer).await?))
}

/// Say that a message is dealt with, or why it failed.
#[utoipa::path(post, path = "/v1/messages/{message}/settle", tag = "messages", operation_id = "message_settle",
    params(("message" = MessageId, Path, description = "Which.")),
    request_body = SettleMessage, responses((status = 204, description = "Noted.")))]
async fn settle(
    caller: Caller,
    At(message): At<MessageId>,
    Body(body): Body<SettleMessage>,
) -> Answer<StatusCode> {
    let settled = caller
        .engine
        .message_settle(message, body.agent, body.failure);
    done(settled.await)
}

/// Subscribe an agent: to messages for itself and to everybody, and to these types.
#[utoipa::path(put, path = "/v1/inboxes/{agent}", tag = "messages", operation_id = "message_subscribe",
    params(("agent" = String, Path, description = "Who.")),
    request_body = Subscription, responses((status = 204, description = "It listens, for as long as the server runs.")))]
async fn subscribe(
    caller: Caller,
    At(agent): At<Name>,
    Maybe(body): Maybe<Subscription>,
) -> Answer<StatusCode> {
    done(caller.engine.message_subscribe(agent, body.kinds).await)
}

/// End an agent's subscription; what is still open for it stays until it expires.
#[utoipa::path(delete, path = "/v1/inboxes/{agent}", tag = "messages", operation_id = "message_unsubscribe",
    params(("agent" = String, Path, description = "Who.")),
    responses((status = 204, description = "It listens no more.")))]
async fn unsubscribe(caller: Caller, At(agent): At<Name>) -> Answer<StatusCode> {
    done(caller.engine.message_unsubscribe(agent).await)
}

/// Receive messages: at once, or within `wait_ms`. Each is to be settled within a minute, or comes again.
#[utoipa::path(post, path = "/v1/inboxes/{agent}/receive", tag = "messages", operation_id = "message_receive",
    params(("agent" = String, Path, description = "Who.")),
    request_body = Receive, responses((status = 200, description = "What waits for it.", body = Received)))]
async fn receive(
    caller: Caller,
    State(app): State<Arc<App>>,
    ending: Ending,
    At(agent): At<Name>,
    Maybe(body): Maybe<Receive>,
) -> Answer<Json<Received>> {
    let wait = Duration::from_millis(body.wait_ms).min(app.limits.wait);
    let received = caller.engine.message_receive(agent, body.max, wait);
    let messages = ending
        .or_none(received)
        .await
        .unwrap_or_else(|| Ok(Vec::new()))?;
    Ok(Json(Received { messages }))
}
