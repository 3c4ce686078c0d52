//! `rc_` tokens: made, listed, revoked and looked up.
//!
//! Used by [`Authenticator`](super::Authenticator), the token routes and the command line. A token
//! has 192 random bits, so its SHA-256 is as good as a slow hash and can be found by an index. The
//! token itself is shown once and kept nowhere.

use std::fmt;
use std::sync::Arc;

use rand::Rng;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use super::checked::{Checked, Ends};
use super::roles;
use crate::database::{Database, DatabaseError, execute, fetch_all, fetch_optional};
use crate::domain::{Clock, Timestamp, TokenId, UserId};

/// What every token starts with.
pub const PREFIX: &str = "rc_";
const HEX_DIGITS: usize = 48;
/// How much of a token its [`TokenInfo::hint`] shows: `rc_` and 8 digits.
const HINT_LENGTH: usize = PREFIX.len() + 8;

/// A well-formed token: `rc_` and 48 lower-case hex digits. A secret: `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

impl ApiToken {
    /// A new one, from the operating system's randomness. A system that has none can't be safe:
    /// then this panics.
    pub fn generate() -> Self {
        let mut bytes = [0_u8; HEX_DIGITS / 2];
        UnwrapErr(SysRng).fill_bytes(&mut bytes);
        Self(format!("{PREFIX}{}", hex(&bytes)))
    }

    /// Reads a token; `None` for anything that we never made, so that it costs nobody a look-up.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let well_formed =
            digits.len() == HEX_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        well_formed.then(|| Self(text.to_owned()))
    }

    /// The token itself, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the database knows it by.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// What people tell it from others by.
    pub fn hint(&self) -> &str {
        &self.0[..HINT_LENGTH]
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiToken(redacted)")
    }
}

/// SHA-256 of a whole token. It opens nothing, but says who is who: `Debug` shows none of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The bytes, as the databases store them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenHash(redacted)")
    }
}

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHolder {
    /// Its user.
    pub user: UserId,
    /// Its roles: `user` when it was made without.
    pub roles: Vec<String>,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
}

impl Ends for TokenHolder {
    fn ends_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
}

/// A token as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its handle, to revoke it by.
    pub id: TokenId,
    /// Its first characters: `rc_01234567`.
    pub hint: String,
    /// Whose it is.
    pub user: UserId,
    /// Its roles, comma-separated; `None` is `user`.
    pub role: Option<String>,
    /// What its maker called it.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
}

/// All tokens. Clones share what is remembered.
#[derive(Clone)]
pub struct ApiTokens {
    database: Database,
    clock: Arc<Clock>,
    checked: Checked<TokenHolder>,
}

impl ApiTokens {
    /// The tokens of `database`.
    pub fn new(database: Database, clock: Arc<Clock>) -> Self {
        Self { database, checked: Checked::new(Arc::clone(&clock)), clock }
    }

    /// The time by which tokens expire.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes a token for `user` with `role` (comma-separated, `None` is `user`). This is the only
    /// time that the token is seen.
    pub async fn create(
        &self,
        user: &UserId,
        role: Option<&str>,
        name: Option<&str>,
        expires_at: Option<Timestamp>,
    ) -> Result<(TokenId, ApiToken), DatabaseError> {
        let token = ApiToken::generate();
        let id = self.insert(&token, user, role, name, expires_at).await?;
        Ok((id, token))
    }

    /// Makes `token` valid. Nobody has tried it before, so nothing wrong is remembered of it.
    pub(super) async fn insert(
        &self,
        token: &ApiToken,
        user: &UserId,
        role: Option<&str>,
        name: Option<&str>,
        expires_at: Option<Timestamp>,
    ) -> Result<TokenId, DatabaseError> {
        let id = TokenId::generate();
        let hash = token.hash();
        let mut transaction = self.database.begin().await?;
        execute!(
            transaction.on(),
            "INSERT INTO api_tokens (id, token_hash, hint, user_id, role, name, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            id.to_string(),
            hash.as_bytes().as_slice(),
            token.hint(),
            &user.0,
            role,
            name,
            self.clock.now().0,
            expires_at.map(|moment| moment.0),
        )?;
        transaction.commit().await?;
        Ok(id)
    }

    /// The tokens of `user`, or everybody's; newest first, at most `limit`, from the one that
    /// follows `after`. Expired ones are listed, revoked ones are not.
    pub async fn list(
        &self,
        user: Option<&UserId>,
        after: Option<TokenId>,
        limit: u32,
    ) -> Result<Vec<TokenInfo>, DatabaseError> {
        type Row = (String, String, String, Option<String>, Option<String>, i64, Option<i64>);
        // `g` sorts after every hex digit: the page starts with the newest.
        let after = after.map_or_else(|| format!("{}g", TokenId::PREFIX), |id| id.to_string());
        let mut connection = self.database.read().await?;
        let rows = match user {
            Some(user) => fetch_all!(
                connection.on(),
                Row,
                "SELECT id, hint, user_id, role, name, created_at, expires_at FROM api_tokens \
                 WHERE revoked_at IS NULL AND id < $1 AND user_id = $2 ORDER BY id DESC LIMIT $3",
                &after,
                &user.0,
                i64::from(limit),
            ),
            None => fetch_all!(
                connection.on(),
                Row,
                "SELECT id, hint, user_id, role, name, created_at, expires_at FROM api_tokens \
                 WHERE revoked_at IS NULL AND id < $1 ORDER BY id DESC LIMIT $2",
                &after,
                i64::from(limit),
            ),
        }?;
        let info = |(id, hint, user, role, name, created_at, expires_at): Row| {
            Ok(TokenInfo {
                id: TokenId::parse(&id).ok_or(DatabaseError::Corrupt("token id"))?,
                hint,
                user: UserId(user),
                role,
                name,
                created_at: Timestamp(created_at),
                expires_at: expires_at.map(Timestamp),
            })
        };
        rows.into_iter().map(info).collect()
    }

    /// Ends a token for good: if it is `owner`'s, or whoever's when no owner is named. Tells
    /// whether there is one; revoking it again changes nothing. Here it stops opening at once, at
    /// other gateways when what they remember has aged.
    pub async fn revoke(&self, id: TokenId, owner: Option<&UserId>) -> Result<bool, DatabaseError> {
        let mut transaction = self.database.begin().await?;
        let revoked = fetch_optional!(
            transaction.on(),
            (Vec<u8>,),
            "UPDATE api_tokens SET revoked_at = COALESCE(revoked_at, $2) \
             WHERE id = $1 AND user_id = COALESCE($3, user_id) RETURNING token_hash",
            id.to_string(),
            self.clock.now().0,
            owner.map(|user| user.0.as_str()),
        )?;
        transaction.commit().await?;
        let Some((hash,)) = revoked else { return Ok(false) };
        let hash = hash.try_into().map_err(|_| DatabaseError::Corrupt("token hash"))?;
        self.checked.forget(&hash).await;
        Ok(true)
    }

    /// Who the token with this hash speaks for; `None` if it is unknown, expired or revoked. What
    /// this says is at most 10 s old.
    pub async fn lookup(&self, hash: TokenHash) -> Result<Option<TokenHolder>, Arc<DatabaseError>> {
        let holder = self.checked.get(hash.0, || self.find(hash)).await?;
        let now = self.clock.now();
        Ok(holder.filter(|holder| holder.expires_at.is_none_or(|end| now < end)))
    }

    async fn find(&self, hash: TokenHash) -> Result<Option<TokenHolder>, DatabaseError> {
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(
            connection.on(),
            (String, Option<String>, Option<i64>),
            "SELECT user_id, role, expires_at FROM api_tokens WHERE token_hash = $1 AND revoked_at IS NULL",
            hash.as_bytes().as_slice(),
        )?;
        Ok(row.map(|(user, role, expires_at)| TokenHolder {
            user: UserId(user),
            roles: roles(role.as_deref()),
            expires_at: expires_at.map(Timestamp),
        }))
    }

    /// Whether any token was ever made, revoked ones included.
    pub(super) async fn any(&self) -> Result<bool, DatabaseError> {
        let mut connection = self.database.read().await?;
        let row = fetch_optional!(connection.on(), (String,), "SELECT id FROM api_tokens LIMIT 1")?;
        Ok(row.is_some())
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_and_hash_as_the_recorded_cases_say() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/better-auth/api-tokens.json")).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let text = case["token"].as_str().unwrap();
            let token = ApiToken::parse(text);
            assert_eq!(token.is_some(), case["well_formed"].as_bool().unwrap(), "{text}");
            if let Some(token) = token {
                assert_eq!(hex(token.hash().as_bytes()), case["sha256_hex"].as_str().unwrap());
                assert_eq!(token.hint(), case["hint"].as_str().unwrap());
            }
        }
    }

    #[test]
    fn a_new_token_reads_back_and_is_never_the_same() {
        let token = ApiToken::generate();
        assert_eq!(ApiToken::parse(token.reveal()).as_ref(), Some(&token));
        assert_ne!(ApiToken::generate(), token);
    }

    #[test]
    fn debug_shows_nothing_of_a_token() {
        let token = ApiToken::generate();
        let shown = format!("{token:?} {:?}", token.hash());
        assert_eq!(shown, "ApiToken(redacted) TokenHash(redacted)");
    }
}
