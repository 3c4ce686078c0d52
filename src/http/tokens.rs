//! `/v1/api-tokens`: made, listed, revoked by their users. A token is shown when it is made and never
//! again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::path::token_not_found;
use super::query::Query;
use super::tasks::only_of;
use super::{ApiError, Body, Gateway};
use crate::auth::Principal;
use crate::auth::api_token::TokenInfo;
use crate::domain::{Timestamp, TokenId, UserId};
use crate::protocol::client::{NAME_BYTES, TEXT};
use crate::protocol::{ErrorCode, ErrorFrame};

/// A token to be.
#[derive(JsonSchema)]
pub(super) struct TokenBody {
    /// What to call it.
    #[schemars(length(min = 1, max = NAME_BYTES), regex(pattern = TEXT))]
    name: Option<String>,
    /// What its user may do besides, at most what its maker may: `admin`.
    #[schemars(length(min = 1, max = NAME_BYTES), regex(pattern = TEXT))]
    role: Option<String>,
    /// When it ends, in the future; never if absent.
    #[schemars(range(min = 1))]
    expires_at: Option<Timestamp>,
}

/// A token that was made.
#[derive(Serialize, JsonSchema)]
pub(super) struct NewToken {
    /// Its handle, to revoke it by.
    token_id: TokenId,
    /// The token. It is not shown again.
    #[schemars(extend("pattern" = "^rc_[0-9a-f]{48}$"))]
    token: String,
    /// Its first characters.
    hint: String,
    /// Whose it is.
    user_id: UserId,
    /// Its roles, comma-separated; `user` for none.
    role: String,
    /// What its maker calls it.
    name: Option<String>,
    /// When it ends, if it does.
    expires_at: Option<Timestamp>,
}

/// A token, without its secret part.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenView {
    /// Its handle, to revoke it by.
    token_id: TokenId,
    /// Its first characters.
    hint: String,
    /// Whose it is.
    user_id: UserId,
    /// Its roles, comma-separated; `user` for none.
    role: String,
    /// What its maker calls it.
    name: Option<String>,
    /// When it was made.
    created_at: Timestamp,
    /// When it ends, if it does.
    expires_at: Option<Timestamp>,
}

/// Tokens, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenList {
    /// Those of this page.
    tokens: Vec<TokenView>,
    /// Where the next page starts; `null` on the last one.
    next_cursor: Option<String>,
}

/// `POST /v1/api-tokens {name?, role?, expires_at?}`: a token for oneself, with at most one's own roles.
pub(super) async fn create(
    State(gateway): State<Gateway>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<NewToken>), ApiError> {
    let tokens = gateway.authenticator.tokens();
    let mut fields = body.fields(&gateway);
    let name = fields.optional_text("name", NAME_BYTES);
    let role = fields.optional_text("role", NAME_BYTES);
    let expires_at = fields.optional_integer("expires_at", 1).and_then(|end| i64::try_from(end).ok()).map(Timestamp);
    if expires_at.is_some_and(|end| end <= tokens.now()) {
        fields.problem("expires_at", "must be in the future, in Unix milliseconds");
    }
    let TokenBody { name, role, expires_at } = fields.finish(Some(TokenBody { name, role, expires_at }))?;
    if !who.may_give(role.as_deref()) {
        return Err(ErrorFrame::new(ErrorCode::Forbidden, "a token carries at most your own roles").into());
    }
    let (id, token) = tokens.create(&who.user, role.as_deref(), name.as_deref(), expires_at).await?;
    let body = NewToken {
        token_id: id,
        token: token.reveal().to_owned(),
        hint: token.hint().to_owned(),
        user_id: who.user,
        role: role.unwrap_or_else(no_role),
        name,
        expires_at,
    };
    Ok((StatusCode::CREATED, Json(body)))
}

/// `GET /v1/api-tokens?all=&limit=&cursor=`: newest first; for admins who ask for it everybody's.
/// Expired ones are listed, revoked ones are not.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    who: Principal,
    mut query: Query,
) -> Result<Json<TokenList>, ApiError> {
    let page = query.page(TokenId::parse);
    let all = query.flag("all");
    query.finish()?;
    let user = only_of(&who, all)?;
    let tokens = gateway.authenticator.tokens().list(user.as_ref(), page.after, page.look_up()).await?;
    let (tokens, next_cursor) = page.cut(tokens, |token| token.id.to_string());
    Ok(Json(TokenList { tokens: tokens.into_iter().map(TokenView::from).collect(), next_cursor }))
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

impl From<TokenInfo> for TokenView {
    fn from(token: TokenInfo) -> Self {
        Self {
            token_id: token.id,
            hint: token.hint,
            user_id: token.user,
            role: token.role.unwrap_or_else(no_role),
            name: token.name,
            created_at: token.created_at,
            expires_at: token.expires_at,
        }
    }
}

fn no_role() -> String {
    "user".to_owned()
}
