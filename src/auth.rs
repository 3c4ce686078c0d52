//! From a credential to a [`Principal`]: who somebody is and what they may do.
//!
//! Used by both doors: they take a [`Credential`] from the request and ask the [`Authenticator`] whose
//! it is, a live connection again and again. `auth::api_token` knows `rc_` tokens, `auth::better_auth`
//! session cookies, `auth::signed_link` the links to files, `auth::origin` who may use cookies.

pub mod api_token;
pub mod better_auth;
mod checked;
mod credential;
pub mod first_token;
pub mod origin;
mod session_cookie;
pub mod signed_link;
mod subprotocol;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, Uri};

pub use self::api_token::{ApiToken, ApiTokens};
use self::better_auth::{BetterAuth, BetterAuthError, CookieRefusal};
pub use self::credential::Credential;
use self::credential::CredentialReader;
use self::origin::{OriginError, Origins};
pub use self::subprotocol::{EXTENDED, select_subprotocol, wants_extended};
use crate::config::AuthConfig;
use crate::database::{Database, DatabaseError};
use crate::domain::{Clock, Timestamp, UserId};

/// The role of who has none.
const DEFAULT_ROLE: &str = "user";

/// Somebody who got in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub user: UserId,
    /// Their roles.
    pub roles: Vec<String>,
    /// Whether one of the roles is privileged: may read, cancel and end what others own.
    pub is_admin: bool,
    /// When the credential ends, if it does. It may be extended until then: ask again.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// Whether they may read what `owner` owns.
    pub fn may_read(&self, owner: &UserId) -> bool {
        self.is_admin || self.user == *owner
    }

    /// Whether they may use a profile that is for `roles` (everybody if empty).
    pub fn may_use(&self, roles: &[String]) -> bool {
        self.is_admin || roles.is_empty() || roles.iter().any(|role| self.roles.contains(role))
    }

    /// Whether they may make a token with `role` (comma-separated, `None` is `user`): a token carries
    /// at most its maker's roles, and everybody is at least a `user`.
    pub fn may_give(&self, role: Option<&str>) -> bool {
        self.is_admin || roles(role).iter().all(|role| role == DEFAULT_ROLE || self.roles.contains(role))
    }
}

/// Why somebody did not get in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No credential, a bad one, an expired one, a revoked one.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// A cookie from an origin that is not on the list.
    #[error("this origin may not use session cookies")]
    OriginRefused,
    /// The database is away: the credential can't be checked now.
    #[error("the credential can't be checked now")]
    Unavailable(#[source] Arc<DatabaseError>),
}

impl From<CookieRefusal> for AuthError {
    fn from(refusal: CookieRefusal) -> Self {
        Self::Unauthorized(match refusal {
            CookieRefusal::Missing => "there is no session cookie: sign in",
            CookieRefusal::Malformed | CookieRefusal::BadSignatureEncoding | CookieRefusal::BadSignature => {
                "the session cookie is not valid: sign in again"
            }
            CookieRefusal::NoSession | CookieRefusal::Expired => "the session has ended: sign in again",
            CookieRefusal::Banned => "this account is banned",
        })
    }
}

impl From<Arc<DatabaseError>> for AuthError {
    fn from(error: Arc<DatabaseError>) -> Self {
        Self::Unavailable(error)
    }
}

/// A setting of `auth.*` that stops the start.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// Of the origins.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Of Better Auth.
    #[error(transparent)]
    BetterAuth(#[from] BetterAuthError),
}

/// Tells whose a credential is. Clones share what is remembered.
#[derive(Clone)]
pub struct Authenticator {
    tokens: ApiTokens,
    better_auth: Option<BetterAuth>,
    reader: CredentialReader,
    privileged_roles: Arc<[String]>,
}

impl Authenticator {
    /// Checks the settings and, where Better Auth is used, its tables. `public_url` is the one that is
    /// in force, `tokens` those that the token routes work on: both then know at once what was revoked.
    pub async fn connect(
        config: &AuthConfig,
        public_url: &str,
        database: &Database,
        tokens: ApiTokens,
        clock: Arc<Clock>,
    ) -> Result<Self, AuthSetupError> {
        let origins = Origins::new(public_url, &config.allowed_origins)?;
        let better_auth = BetterAuth::connect(&config.better_auth, public_url, database, clock).await?;
        let cookies = better_auth.as_ref().map(|better_auth| better_auth.verifier().clone());
        let privileged_roles = config.privileged_roles.as_slice().into();
        Ok(Self { tokens, better_auth, reader: CredentialReader { cookies, origins }, privileged_roles })
    }

    /// The credential of a WebSocket handshake: header, subprotocol, `?token=`, cookie. Cookies pass
    /// the origin rule first. Asks no database.
    pub fn credential_from_upgrade(&self, headers: &HeaderMap, uri: &Uri) -> Result<Credential, AuthError> {
        self.reader.of_upgrade(headers, uri)
    }

    /// The credential of a plain request: header, `?token=`, cookie. A cookie that changes something
    /// passes the origin rule first. Asks no database.
    pub fn credential_from_request(
        &self,
        method: &Method,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Credential, AuthError> {
        self.reader.of_request(method, headers, uri)
    }

    /// Whose it is, as of at most 10 s ago. Cheap enough for every connection to ask every 10 s.
    /// A database that does not answer makes it `Unavailable`, never `Unauthorized`. Cancel safe.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Principal, AuthError> {
        let (user, roles, expires_at) = match credential {
            Credential::ApiToken(hash) => {
                let holder = self.tokens.lookup(*hash).await?;
                let holder = holder.ok_or(AuthError::Unauthorized("this API token is unknown, expired or revoked"))?;
                (holder.user, holder.roles, holder.expires_at)
            }
            Credential::Session(token) => {
                // Without Better Auth no reader makes such a credential.
                let better_auth = self.better_auth.as_ref().ok_or(AuthError::from(CookieRefusal::Missing))?;
                let session = better_auth.lookup(token).await??;
                (session.user, session.roles, Some(session.expires_at))
            }
        };
        let is_admin = roles.iter().any(|role| self.privileged_roles.contains(role));
        Ok(Principal { user, roles, is_admin, expires_at })
    }

    /// Whether `credential` is still good for what `who` was let in for: not revoked or run out, of the same user,
    /// and no role taken away that lets it see more. While that can't be checked, it is. Cancel safe.
    pub async fn still_holds(&self, credential: &Credential, who: &Principal) -> bool {
        match self.authenticate(credential).await {
            Ok(now) => now.user == who.user && (now.is_admin || !who.is_admin),
            Err(AuthError::Unauthorized(_) | AuthError::OriginRefused) => false,
            Err(AuthError::Unavailable(_)) => true,
        }
    }

    /// The API tokens it knows.
    pub fn tokens(&self) -> &ApiTokens {
        &self.tokens
    }
}

/// Roles as Better Auth keeps them: comma-separated; who has none is a `user`.
fn roles(text: Option<&str>) -> Vec<String> {
    let split = text.unwrap_or_default().split(',').map(str::trim).filter(|role| !role.is_empty());
    let roles: Vec<String> = split.map(str::to_owned).collect();
    if roles.is_empty() { vec![DEFAULT_ROLE.to_owned()] } else { roles }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_split_at_commas_and_nobody_is_without() {
        for (text, expected) in [
            (None, &["user"][..]),
            (Some(""), &["user"]),
            (Some(" , "), &["user"]),
            (Some("admin"), &["admin"]),
            (Some("user, admin"), &["user", "admin"]),
            (Some("Admin"), &["Admin"]),
        ] {
            assert_eq!(roles(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_token_carries_at_most_its_makers_roles() {
        let maker = |roles: &[&str], is_admin| Principal {
            user: UserId("u".to_owned()),
            roles: roles.iter().map(ToString::to_string).collect(),
            is_admin,
            expires_at: None,
        };
        for (maker, role, expected) in [
            (maker(&["user"], false), None, true),
            (maker(&["user"], false), Some("user"), true),
            (maker(&["user"], false), Some("admin"), false),
            (maker(&["user"], false), Some("user,admin"), false),
            (maker(&["editor"], false), Some("editor"), true),
            (maker(&["editor"], false), None, true),
            (maker(&["admin"], true), Some("editor,admin"), true),
        ] {
            assert_eq!(maker.may_give(role), expected, "{maker:?} {role:?}");
        }
    }
}
