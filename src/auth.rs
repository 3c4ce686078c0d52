//! From a credential to a [`Principal`]: who somebody is and what they may do.
//!
//! Used by both doors. `auth::api_token` knows `rc_` tokens, `auth::better_auth` session cookies,
//! `auth::signed_link` the links to files, `auth::origin` who may use cookies.

pub mod api_token;
pub mod better_auth;
pub mod origin;
pub mod signed_link;

use crate::domain::{Timestamp, UserId};

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
    Unavailable(#[source] crate::database::DatabaseError),
}
