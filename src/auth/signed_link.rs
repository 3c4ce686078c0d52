//! Links to files of a workspace that open without a credential, for a while.
//!
//! Whoever delivers an event that names a file has one signed; the file route verifies it. A
//! link opens one file of one session for reading, and nothing else: its purpose is part of what is
//! signed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use percent_encoding::percent_decode_str;
use rand::Rng;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::api_token::hex;
use crate::database::DatabaseError;
use crate::domain::{Clock, SessionId, Timestamp};
use crate::protocol::link::fill_links;
use crate::protocol::{FrameText, StoredEvent};
use crate::store::Store;

/// What these tokens are for: one that was signed for anything else opens no file.
const PURPOSE: &str = "streamgate:file:read";
/// The secret's name in the table `settings`.
const SETTING: &str = "link_secret";
const SECRET_LENGTH: usize = 32;

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    path: String,
    /// Unix seconds (RFC 7519 §4.1.4).
    exp: i64,
}

/// Signs and verifies links.
#[derive(Clone)]
pub struct SignedLinks {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl SignedLinks {
    /// With the `configured` secret; if that is empty, with one that all gateways on one database
    /// share, made by the first of them. `Config::check` has seen that it is long enough.
    pub async fn open(store: &Store, configured: &str) -> Result<Self, DatabaseError> {
        if configured.is_empty() {
            return Ok(Self::new(shared_secret(store).await?.as_bytes()));
        }
        Ok(Self::new(configured.as_bytes()))
    }

    /// With `secret`.
    pub fn new(secret: &[u8]) -> Self {
        // Only this algorithm, whatever a token's header says.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[PURPOSE]);
        validation.set_required_spec_claims(&["aud", "sub", "exp"]);
        // Expiry is ours to check: the library would ask another clock, and give a minute's grace.
        validation.validate_exp = false;
        Self { signing: EncodingKey::from_secret(secret), verifying: DecodingKey::from_secret(secret), validation }
    }

    /// A token for the file at `path` of `session`'s workspace, to the second of `expires_at`.
    pub fn sign(&self, session: SessionId, path: &str, expires_at: Timestamp) -> String {
        let claims = Claims {
            aud: PURPOSE.to_owned(),
            sub: session.to_string(),
            path: path.to_owned(),
            exp: expires_at.0.div_euclid(1_000),
        };
        // Can't fail for texts and a number; if it ever does, the link opens nothing.
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).unwrap_or_else(|error| {
            error!(%error, "A link to a file could not be signed");
            String::new()
        })
    }

    /// Whether `token` opens exactly this file, now.
    pub fn verify(&self, token: &str, session: SessionId, path: &str, now: Timestamp) -> bool {
        let Ok(token) = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation) else {
            return false;
        };
        let claims = token.claims;
        claims.sub == session.to_string() && claims.path == path && now.0 < claims.exp.saturating_mul(1_000)
    }
}

/// Makes the public addresses of workspace files.
#[derive(Clone, Debug)]
pub struct Links {
    signer: SignedLinks,
    public_url: String,
    lifetime: Duration,
    clock: Arc<Clock>,
}

impl Links {
    /// Addresses under `public_url` that open for `lifetime`.
    pub fn new(signer: SignedLinks, public_url: String, lifetime: Duration, clock: Arc<Clock>) -> Self {
        Self { signer, public_url, lifetime, clock }
    }

    /// The gateway's address as clients see it.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// The address of a session's file. `path` is relative and percent-encoded; the signature binds what
    /// it decodes to.
    pub fn url(&self, session: SessionId, path: &str) -> String {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let token = self.signer.sign(session, &decoded, self.clock.now().plus(self.lifetime));
        format!("{}/v1/sessions/{session}/files/{path}?_pvt={token}", self.public_url)
    }

    /// An event's frame as viewers get it: with fresh links.
    pub fn frame(&self, session: SessionId, event: StoredEvent) -> FrameText {
        if event.has_links {
            FrameText::from(fill_links(&event.frame, |path| self.url(session, path)))
        } else {
            event.frame
        }
    }

    /// Whether `token` opens the file at the (decoded) `path` of `session` now.
    pub fn opens(&self, token: &str, session: SessionId, path: &str) -> bool {
        self.signer.verify(token, session, path, self.clock.now())
    }
}

impl fmt::Debug for SignedLinks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SignedLinks(redacted)")
    }
}

/// The secret that all gateways on one database share.
async fn shared_secret(store: &Store) -> Result<String, DatabaseError> {
    let mut bytes = [0_u8; SECRET_LENGTH];
    UnwrapErr(SysRng).fill_bytes(&mut bytes);
    let kept = store.setting(SETTING, &hex(&bytes)).await?;
    // An empty secret would let anybody sign.
    if kept.len() < SECRET_LENGTH { Err(DatabaseError::Corrupt(SETTING)) } else { Ok(kept) }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &[u8] = b"a secret of links, long enough to be one";
    const PATH: &str = "out/plan 1.png";
    const END: Timestamp = Timestamp(1_800_000_000_000);
    const BEFORE: Timestamp = Timestamp(END.0 - 1);

    fn signed(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    #[test]
    fn a_link_opens_its_one_file_until_it_expires() {
        let (links, session) = (SignedLinks::new(SECRET), SessionId::generate());
        let token = links.sign(session, PATH, END);
        assert!(links.verify(&token, session, PATH, BEFORE));
        assert!(!links.verify(&token, session, PATH, END));
        assert!(!links.verify(&token, session, "out/plan 2.png", BEFORE));
        assert!(!links.verify(&token, session, "", BEFORE));
        assert!(!links.verify(&token, SessionId::generate(), PATH, BEFORE));
        assert!(!SignedLinks::new(b"another secret").verify(&token, session, PATH, BEFORE));
    }

    #[test]
    fn nothing_else_opens_a_file() {
        let (links, session) = (SignedLinks::new(SECRET), SessionId::generate());
        let claims = json!({"aud": PURPOSE, "sub": session, "path": PATH, "exp": END.0 / 1_000});
        let without = |name: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().unwrap().remove(name);
            signed(Algorithm::HS256, SECRET, &claims)
        };
        let with = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            signed(Algorithm::HS256, SECRET, &claims)
        };
        let good = signed(Algorithm::HS256, SECRET, &claims);
        assert!(links.verify(&good, session, PATH, BEFORE), "the forgeries differ from a good one in one thing");

        let (body, signature) = good.rsplit_once('.').unwrap();
        let payload = body.split_once('.').unwrap().1;
        let none = BASE64.encode(r#"{"typ":"JWT","alg":"none"}"#);
        for (name, forged) in [
            ("empty", String::new()),
            ("no signature", body.to_owned()),
            ("an empty signature", format!("{body}.")),
            ("a cut signature", good[..good.len() - 1].to_owned()),
            ("another body", format!("{}.{signature}", with("path", json!("other")).rsplit_once('.').unwrap().0)),
            ("alg none", format!("{none}.{payload}.")),
            ("alg none, signed", format!("{none}.{payload}.{signature}")),
            ("alg HS384", signed(Algorithm::HS384, SECRET, &claims)),
            ("alg HS512", signed(Algorithm::HS512, SECRET, &claims)),
            ("another secret", signed(Algorithm::HS256, b"another secret", &claims)),
            ("no secret", signed(Algorithm::HS256, b"", &claims)),
            ("another purpose", with("aud", json!("streamgate:file:write"))),
            ("several purposes", with("aud", json!(["other", "more"]))),
            ("no purpose", without("aud")),
            ("no session", without("sub")),
            ("no path", without("path")),
            ("no expiry", without("exp")),
            ("an expiry that is no number", with("exp", json!("never"))),
            ("a path that is no text", with("path", json!([PATH]))),
        ] {
            assert!(!links.verify(&forged, session, PATH, BEFORE), "{name}");
        }
    }

    #[test]
    fn the_latest_expiry_there_is_does_not_overflow() {
        let (links, session) = (SignedLinks::new(SECRET), SessionId::generate());
        assert!(links.verify(&links.sign(session, PATH, Timestamp(i64::MAX)), session, PATH, BEFORE));
    }
}
