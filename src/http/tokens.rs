//! `/v1/api-tokens`: made, listed, revoked by their users. A token is shown when it is made and never
//! again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::path::token_not_found;
use super::query::Query;
use super::tasks::only_of;
use super::{ApiError, Body, Gateway};
use crate::auth::Principal;
use crate::auth::api_token::TokenInfo;
use crate::domain::{Timestamp, TokenId};
use crate::protocol::client::NAME_BYTES;
use crate::protocol::{ErrorCode, ErrorFrame};

/// `POST /v1/api-tokens {name?, role?, expires_at?}`: a token for oneself, with at most one's own roles.
pub(super) async fn create(
    State(gateway): State<Gateway>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let tokens = gateway.authenticator.tokens();
    let mut fields = body.fields(&gateway);
    let name = fields.optional_text("name", NAME_BYTES);
    let role = fields.optional_text("role", NAME_BYTES);
    let expires_at = fields.optional_integer("expires_at", 1).and_then(|end| i64::try_from(end).ok()).map(Timestamp);
    if expires_at.is_some_and(|end| end <= tokens.now()) {
        fields.problem("expires_at", "must be in the future, in Unix milliseconds");
    }
    fields.finish(Some(()))?;
    if !who.may_give(role.as_deref()) {
        return Err(ErrorFrame::new(ErrorCode::Forbidden, "a token carries at most your own roles").into());
    }
    let (id, token) = tokens.create(&who.user, role.as_deref(), name.as_deref(), expires_at).await?;
    let body = json!({
        "token_id": id,
        "token": token.reveal(),
        "hint": token.hint(),
        "user_id": who.user,
        "role": role.as_deref().unwrap_or("user"),
        "name": name,
        "expires_at": expires_at,
    });
    Ok((StatusCode::CREATED, Json(body)))
}

/// `GET /v1/api-tokens?all=&limit=&cursor=`: newest first; for admins who ask for it everybody's.
/// Expired ones are listed, revoked ones are not.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    who: Principal,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    let page = query.page(TokenId::parse);
    let all = query.flag("all");
    query.finish()?;
    let user = only_of(&who, all)?;
    let tokens = gateway.authenticator.tokens().list(user.as_ref(), page.after, page.look_up()).await?;
    Ok(Json(page.body("tokens", tokens, show, |token| token.id.to_string())))
}

/// `DELETE /v1/api-tokens/{id}`: revokes one's own; admins anybody's.
pub(super) async fn revoke(
    State(gateway): State<Gateway>,
    who: Principal,
    id: TokenId,
) -> Result<StatusCode, ApiError> {
    let owner = (!who.is_admin).then_some(&who.user);
    if gateway.authenticator.tokens().revoke(id, owner).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(token_not_found().into())
    }
}

fn show(token: &TokenInfo) -> Value {
    json!({
        "token_id": token.id,
        "hint": token.hint,
        "user_id": token.user,
        "role": token.role.as_deref().unwrap_or("user"),
        "name": token.name,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    })
}
