//! The way into an agent, the same for every runtime: one writer at a time, each with a deadline.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::RuntimeError;

/// An agent's stdin.
pub(super) struct Stdin<W>(Mutex<Option<W>>);

impl<W: AsyncWrite + Send + Unpin> Stdin<W> {
    pub(super) fn new(writer: W) -> Self {
        Self(Mutex::new(Some(writer)))
    }

    /// Writes all of `bytes`. A write that is given up (deadline, cancellation, error) closes the pipe:
    /// it may have left half a line, and nothing must be glued to that.
    pub(super) async fn write(&self, bytes: &[u8], deadline: Duration) -> Result<(), RuntimeError> {
        let write = async {
            let mut slot = self.0.lock().await;
            // Out of the slot while we write: whatever ends this early drops the writer.
            let mut writer = slot.take().ok_or(RuntimeError::Gone)?;
            writer.write_all(bytes).await.map_err(|_| RuntimeError::Gone)?;
            writer.flush().await.map_err(|_| RuntimeError::Gone)?;
            *slot = Some(writer);
            Ok(())
        };
        timeout(deadline, write).await.unwrap_or(Err(RuntimeError::NotReading))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_write_that_was_given_up_closes_the_pipe() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let stdin = Stdin::new(ours);
        let given_up = stdin.write(b"too long for it\n", Duration::from_millis(20)).await;
        assert!(matches!(given_up, Err(RuntimeError::NotReading)), "{given_up:?}");

        let later = stdin.write(b"glued\n", Duration::from_millis(20)).await;
        assert!(matches!(later, Err(RuntimeError::Gone)), "{later:?}");
        let mut seen = String::new();
        theirs.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "too ");
    }
}
