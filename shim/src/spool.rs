//! The spool's writing end: appends records to segments, forgets those that are acknowledged.
//!
//! The agent can write the directory too: names are opened relative to it, never through links, and the
//! segment at hand is written through the descriptor that made it. What the agent breaks, its own reader
//! sees by the checksums.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use streamgate_shim::record::{Body, Record, segment_name};

/// The writing end.
pub(crate) struct Spool {
    directory: OwnedFd,
    segment_limit: u64,
    limit: u64,
    segments: VecDeque<Segment>,
    /// The last one's file.
    file: Option<File>,
    /// The last record that is in a segment.
    written: u64,
    /// Encoded and not yet in a segment: the disk may be full.
    waiting: Vec<u8>,
    /// The last record that is encoded.
    last: u64,
}

struct Segment {
    first: u64,
    bytes: u64,
}

impl Spool {
    pub(crate) fn new(directory: OwnedFd, segment_limit: u64, limit: u64) -> Self {
        Self {
            directory,
            segment_limit,
            limit,
            segments: VecDeque::new(),
            file: None,
            written: 0,
            waiting: Vec::new(),
            last: 0,
        }
    }

    /// The last record that can be read.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// What the segments take.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether the agent has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.is_stuck() || self.bytes() >= self.limit
    }

    /// Whether something could not be written: try [`Spool::flush`] again.
    pub(crate) fn is_stuck(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Adds a record, to be written by [`Spool::flush`].
    pub(crate) fn push(&mut self, body: Body) {
        self.last += 1;
        Record { number: self.last, body }.encode_into(&mut self.waiting);
    }

    /// Writes what was added. What can't be written now is kept.
    pub(crate) fn flush(&mut self) {
        if self.waiting.is_empty() || self.write().is_err() {
            return;
        }
        self.waiting.clear();
        self.written = self.last;
    }

    fn write(&mut self) -> io::Result<()> {
        let full = self.segments.back().is_none_or(|segment| segment.bytes >= self.segment_limit);
        if full || self.file.is_none() {
            let first = self.written + 1;
            self.file = Some(self.create(&segment_name(first))?);
            self.segments.push_back(Segment { first, bytes: 0 });
        }
        if let (Some(file), Some(segment)) = (&self.file, self.segments.back_mut()) {
            // At its place, not at the end: what was written in part is written over by the next try.
            file.write_all_at(&self.waiting, segment.bytes)?;
            segment.bytes += self.waiting.len() as u64;
        }
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR);
        match create() {
            Ok(file) => Ok(file.into()),
            Err(Errno::EXIST) => {
                // Not ours: the agent planted it.
                unlinkat(&self.directory, name, AtFlags::empty())?;
                Ok(create()?.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets the segments that hold nothing after `record`.
    pub(crate) fn acknowledge(&mut self, record: u64) {
        while self.segments.get(1).is_some_and(|next| next.first <= record.saturating_add(1)) {
            self.forget_first();
        }
        // The last one goes only when its place is needed.
        if record >= self.written && !self.is_stuck() && self.bytes() >= self.limit {
            self.file = None;
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            // Whatever is there in its place is the agent's affair.
            let _ = unlinkat(&self.directory, segment_name(segment.first), AtFlags::empty());
        }
    }
}
