//! The token that a new gateway makes for whoever started it.
//!
//! It is kept in `<data_dir>/first-token`, for its owner's eyes only, so that the start can print a
//! link that works, and `streamgate chat` finds it.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use super::api_token::{ApiToken, ApiTokens};
use crate::database::DatabaseError;
use crate::domain::UserId;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "first-token";
/// Whose it is.
const USER: &str = "local";
/// Who runs a gateway on his own machine may see all that is on it.
const ROLE: &str = "admin";

/// Why there is no first token although there should be.
#[derive(Debug, thiserror::Error)]
pub enum FirstTokenError {
    /// The file can't be read or written.
    #[error("can't keep the first token in `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database can't tell or keep tokens.
    #[error("can't look for the first token in the database")]
    Database(#[source] Arc<DatabaseError>),
}

impl From<DatabaseError> for FirstTokenError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl ApiTokens {
    /// The first token, made if no token was ever made. `None` when the file is gone or what it
    /// holds no longer opens: the owner has other tokens then, or `streamgate token create`.
    pub async fn ensure_first_token(&self, data_dir: &Path) -> Result<Option<ApiToken>, FirstTokenError> {
        let path = data_dir.join(FILE_NAME);
        let in_file = |source| FirstTokenError::File { path: path.clone(), source };
        if self.any().await? {
            let Some(token) = read(&path).await.map_err(in_file)? else { return Ok(None) };
            let holder = self.lookup(token.hash()).await.map_err(FirstTokenError::Database)?;
            return Ok(holder.map(|_| token));
        }
        let token = ApiToken::generate();
        // File first: if we die in between, the next start finds no token and begins anew. The other
        // way round, there would be a token that nobody knows.
        write(&path, &token).await.map_err(in_file)?;
        self.insert(&token, &UserId(USER.to_owned()), Some(ROLE), Some("first token"), None).await?;
        Ok(Some(token))
    }
}

async fn read(path: &Path) -> io::Result<Option<ApiToken>> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(ApiToken::parse(text.trim_end())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file in one step, so that nobody ever reads half a token.
async fn write(path: &Path, token: &ApiToken) -> io::Result<()> {
    if let Some(data_dir) = path.parent() {
        tokio::fs::create_dir_all(data_dir).await?;
    }
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    // A leftover of a start that died would keep its own mode.
    match tokio::fs::remove_file(&fresh).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let options = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).to_owned();
    let mut file = tokio::fs::OpenOptions::from(options).open(&fresh).await?;
    file.write_all(format!("{}\n", token.reveal()).as_bytes()).await?;
    file.sync_all().await?;
    tokio::fs::rename(&fresh, path).await
}
