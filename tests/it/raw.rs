//! A WebSocket client whose every byte the test decides: headers that no library sends, frames that no
//! library makes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::support::PATIENCE;

/// First bytes of frames: a whole message of a kind.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
/// Kinds of frames that come back.
const TEXT_OPCODE: u8 = 0x1;
const CLOSE_OPCODE: u8 = 0x8;
const PONG_OPCODE: u8 = 0xA;
/// Any key will do: masking hides nothing.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// The answer to an upgrade.
pub(crate) struct Handshake {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Handshake {
    /// All values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// The client.
pub(crate) struct Raw {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

/// The code and the reason of a server's close, and the text frames before it.
pub(crate) type Close = (u16, String, Vec<Value>);

impl Raw {
    /// Asks for an upgrade of `path` with `headers` beside those that every upgrade has.
    pub(crate) async fn upgrade(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (Self, Handshake) {
        let extra = headers.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect::<String>();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        );
        let (reader, writer) = TcpStream::connect(address).await.unwrap().into_split();
        let mut raw = Self { reader, writer };
        raw.bytes(request.as_bytes()).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(exactly(&mut raw.reader, 1).await.expect("an answer to the upgrade"));
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        (raw, Handshake { status, headers })
    }

    /// An open socket of whoever holds `token`.
    pub(crate) async fn open(address: SocketAddr, token: &str) -> Self {
        let (raw, handshake) =
            Self::upgrade(address, "/v1/stream", &[("Authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(handshake.status, 101);
        raw
    }

    /// Sends bytes as they are. The gateway may have closed already: then nobody hears them.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.writer.write_all(bytes)).await.expect("the socket takes bytes");
    }

    /// Sends a masked frame.
    pub(crate) async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.bytes(&masked(first, payload)).await;
    }

    /// Sends bytes and reads up to the server's close at the same time, as every browser does.
    pub(crate) async fn bytes_until_closed(&mut self, bytes: &[u8]) -> Close {
        let send = timeout(PATIENCE, self.writer.write_all(bytes));
        // A server that closes early need not take the rest.
        let (_, close) = tokio::join!(send, read_close(&mut self.reader));
        close
    }

    /// The next text frame; pings are passed over, unanswered.
    pub(crate) async fn json(&mut self) -> Value {
        self.json_or_close().await.unwrap_or_else(|close| panic!("closed: {close:?}"))
    }

    /// The next text frame, or the code and the reason of the server's close.
    pub(crate) async fn json_or_close(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match next_frame(&mut self.reader).await.expect("a frame") {
                (TEXT_OPCODE, payload) => return Ok(serde_json::from_slice(&payload).unwrap()),
                (CLOSE_OPCODE, payload) => return Err(code_and_reason(&payload)),
                _ => (),
            }
        }
    }

    /// The next pong, or the code and the reason of the server's close.
    pub(crate) async fn pong_or_close(&mut self) -> Result<(), (u16, String)> {
        loop {
            match next_frame(&mut self.reader).await.expect("a frame") {
                (PONG_OPCODE, _) => return Ok(()),
                (CLOSE_OPCODE, payload) => return Err(code_and_reason(&payload)),
                _ => (),
            }
        }
    }

    /// The server's close and what came before it.
    pub(crate) async fn closed(&mut self) -> Close {
        read_close(&mut self.reader).await
    }

    /// Reads to the end of the stream: whether there was a close frame, and nothing after it.
    pub(crate) async fn ends_after_close(&mut self) -> bool {
        let mut closed = false;
        while let Some((opcode, _)) = next_frame(&mut self.reader).await {
            assert!(!closed, "a frame after the close");
            closed = opcode == CLOSE_OPCODE;
        }
        closed
    }
}

async fn read_close(reader: &mut OwnedReadHalf) -> Close {
    let mut texts = Vec::new();
    loop {
        match next_frame(reader).await.expect("a close frame before the end of the stream") {
            (TEXT_OPCODE, payload) => texts.push(serde_json::from_slice(&payload).unwrap()),
            (CLOSE_OPCODE, payload) => {
                let (code, reason) = code_and_reason(&payload);
                return (code, reason, texts);
            }
            _ => (),
        }
    }
}

fn code_and_reason(payload: &[u8]) -> (u16, String) {
    let (code, reason) = payload.split_at(2);
    (u16::from_be_bytes(code.try_into().unwrap()), String::from_utf8(reason.to_vec()).unwrap())
}

/// The next frame: its opcode and payload. `None` when the stream has ended.
async fn next_frame(reader: &mut OwnedReadHalf) -> Option<(u8, Vec<u8>)> {
    let head = exactly(reader, 2).await?;
    assert_eq!(head[0] & 0xf0, 0x80, "a server's frames are whole and plain");
    assert_eq!(head[1] & 0x80, 0, "a server does not mask");
    let length = match head[1] {
        126 => u64::from(u16::from_be_bytes(exactly(reader, 2).await?.try_into().unwrap())),
        127 => u64::from_be_bytes(exactly(reader, 8).await?.try_into().unwrap()),
        short => u64::from(short),
    };
    Some((head[0] & 0x0f, exactly(reader, usize::try_from(length).unwrap()).await?))
}

async fn exactly(reader: &mut OwnedReadHalf, count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count];
    let read = timeout(PATIENCE, reader.read_exact(&mut bytes)).await.expect("bytes in time");
    read.is_ok().then_some(bytes)
}

/// A masked frame's bytes.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, 0x80, payload.len() as u64);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A frame's first bytes, up to its length.
pub(crate) fn head(first: u8, mask_bit: u8, length: u64) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(length) {
        Ok(short @ 0..126) => frame.push(mask_bit | short.to_be_bytes()[1]),
        Ok(medium) => {
            frame.push(mask_bit | 0x7e);
            frame.extend(medium.to_be_bytes());
        }
        Err(_) => {
            frame.push(mask_bit | 0x7f);
            frame.extend(length.to_be_bytes());
        }
    }
    frame
}
