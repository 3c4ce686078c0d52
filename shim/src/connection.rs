//! One gateway's connection: lines in, lines out, both bounded, never blocking.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use streamgate_shim::control::{MAX_REQUEST, Message, Outcome, Refusal, RefusalCode, Request};

/// What may wait for a gateway to read it. Over it, the gateway is hung up on.
const OUT_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;

/// A connection.
pub(crate) struct Connection {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// The last number that was told.
    told: u64,
    /// Says that it is the gateway that holds the shim.
    pub(crate) holds: bool,
    /// Tells connections apart.
    pub(crate) serial: u64,
}

/// A line from a gateway.
pub(crate) type Line = Result<Request, Refusal>;

impl Connection {
    pub(crate) fn new(stream: UnixStream, serial: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, incoming: Vec::new(), outgoing: Vec::new(), told: 0, holds: false, serial })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what has come; an error is its end.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut buffer = vec![0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.incoming.extend_from_slice(&buffer[..read]),
            Err(error) if is_nothing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut lines = Vec::new();
        let mut from = 0;
        while let Some(length) = self.incoming[from..].iter().position(|byte| *byte == b'\n') {
            let line = &self.incoming[from..from + length];
            from += length + 1;
            lines.push(serde_json::from_slice(line).map_err(|error| Refusal {
                code: RefusalCode::BadRequest,
                message: format!("not a request: {error}"),
            }));
        }
        self.incoming.drain(..from);
        if self.incoming.len() > MAX_REQUEST {
            return Err(io::Error::other("a line without an end"));
        }
        Ok(lines)
    }

    /// Writes what waits, then tells who holds the shim how far the spool has come. Who has not read what it was
    /// told before is told when it has.
    pub(crate) fn write_and_tell(&mut self, records: u64) -> io::Result<()> {
        self.write()?;
        if self.holds && self.told < records && self.outgoing.is_empty() {
            self.told = records;
            self.send(&Message::Records { records });
            self.write()?;
        }
        Ok(())
    }

    /// Writes what waits, as far as it goes.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if is_nothing(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if self.outgoing.len() > OUT_BYTES { Err(io::Error::other("it does not read")) } else { Ok(()) }
    }

    pub(crate) fn reply(&mut self, tag: u64, outcome: Outcome) {
        self.send(&Message::Reply { tag, outcome });
    }

    fn send(&mut self, message: &Message) {
        // Into memory: can't fail.
        let _ = serde_json::to_writer(&mut self.outgoing, message);
        self.outgoing.push(b'\n');
    }
}

/// Whether there is only nothing to do now.
pub(crate) fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
