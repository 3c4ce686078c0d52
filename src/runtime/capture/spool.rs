//! What an agent said, as its shim keeps it: read by number, from a directory that the agent can write.
//!
//! So nothing in there is believed: only regular files with one name are opened, never through a link
//! and never blocking, sizes are capped, and every record carries its number and a checksum. What does
//! not fit together is [`SpoolError::Damaged`], never a silent gap.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use streamgate_shim::record::{Record, decode, parse_segment_name, segment_name};

/// How much is read at once: little, since words come one by one (measured: a fifth of the gateway's work was to
/// zero the rest of a large buffer), and more while there is more.
const READ_BYTES: usize = 4 << 10;
const MOST_READ_BYTES: usize = 256 << 10;

/// Why a spool can't be read on.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum SpoolError {
    /// It is not what its shim wrote.
    #[error("what the agent said was damaged: {0}")]
    Damaged(String),
    /// The disk.
    #[error("what the agent said can't be read: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for SpoolError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A place in a spool.
pub(in crate::runtime) struct Spool {
    directory: OwnedFd,
    /// The largest payload that a record may have.
    max_payload: usize,
    /// The record that comes next.
    next: u64,
    segment: Option<Segment>,
}

/// The file that holds the next record.
struct Segment {
    /// Its first record: its name.
    first: u64,
    file: File,
    /// Where to read on.
    offset: u64,
    /// How much to read next.
    want: usize,
    /// Read, and not yet a whole record.
    rest: Vec<u8>,
}

impl Spool {
    /// The spool in `directory`, from the record after `after` on.
    pub(in crate::runtime) fn open(directory: &Path, after: u64, max_payload: usize) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, directory, flags, Mode::empty())?;
        Ok(Self { directory, max_payload, next: after + 1, segment: None })
    }

    /// The records that have come since, in order; none when there are none yet. One up to `told` must be
    /// there. Blocks for a moment.
    pub(in crate::runtime) fn read(&mut self, told: u64) -> Result<Vec<Record>, SpoolError> {
        let records = self.read_on()?;
        // Its shim tells of a record when it is written: somebody has taken it out.
        if records.is_empty() && self.next <= told {
            return Err(self.missing());
        }
        Ok(records)
    }

    fn read_on(&mut self) -> Result<Vec<Record>, SpoolError> {
        let mut records = Vec::new();
        loop {
            if self.segment.is_none() {
                match self.find()? {
                    Some(segment) => self.segment = Some(segment),
                    None => return Ok(records),
                }
            }
            let Some(segment) = &mut self.segment else { return Ok(records) };
            let read = segment.fill()?;
            let mut taken = 0;
            while let Some((record, bytes)) = decode(&segment.rest[taken..], self.max_payload)
                .map_err(|error| SpoolError::Damaged(error.to_string()))?
            {
                taken += bytes;
                if record.number < self.next {
                    continue; // Known: the place was inside of this segment.
                }
                if record.number > self.next {
                    return Err(self.missing());
                }
                self.next += 1;
                records.push(record);
            }
            segment.rest.drain(..taken);
            if !records.is_empty() {
                return Ok(records);
            }
            if read == 0 {
                // The end of what this file holds so far: is there a later one? Not while its own first record comes.
                let is_own = segment.first == self.next;
                let later = if is_own { None } else { open_segment(&self.directory, self.next)? };
                match later {
                    None => return Ok(records),
                    Some(later) if segment.rest.is_empty() => self.segment = Some(later),
                    Some(_) => return Err(SpoolError::Damaged(format!("record {} is torn", self.next))),
                }
            }
        }
    }

    /// The segment that holds, or will hold, the next record.
    fn find(&self) -> Result<Option<Segment>, SpoolError> {
        let mut firsts = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            firsts.extend(first_of(entry?.file_name()));
        }
        match firsts.iter().filter(|first| **first <= self.next).max() {
            Some(first) => open_segment(&self.directory, *first),
            None if firsts.is_empty() => Ok(None),
            None => Err(self.missing()),
        }
    }

    fn missing(&self) -> SpoolError {
        SpoolError::Damaged(format!("record {} is missing", self.next))
    }
}

impl Segment {
    /// Reads on; gives how many bytes came.
    fn fill(&mut self) -> io::Result<usize> {
        let old = self.rest.len();
        self.rest.resize(old + self.want, 0);
        let read = self.file.read_at(&mut self.rest[old..], self.offset);
        self.rest.truncate(old + *read.as_ref().unwrap_or(&0));
        let read = read?;
        self.want = if read < self.want { READ_BYTES } else { MOST_READ_BYTES.min(self.want * 4) };
        self.offset += read as u64;
        Ok(read)
    }
}

fn first_of(name: &CStr) -> Option<u64> {
    name.to_str().ok().and_then(parse_segment_name)
}

/// Opens a segment; `None` when there is none of that name.
fn open_segment(directory: &OwnedFd, first: u64) -> Result<Option<Segment>, SpoolError> {
    // Without blocking: a pipe of that name would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, segment_name(first), flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(SpoolError::Damaged("a segment is not a file".to_owned())),
        Err(error) => return Err(error.into()),
    };
    let status = fstat(&file)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile || status.st_nlink > 1 {
        return Err(SpoolError::Damaged("a segment is not a file".to_owned()));
    }
    Ok(Some(Segment { first, file: file.into(), offset: 0, want: READ_BYTES, rest: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use streamgate_shim::record::Body;

    use super::*;

    fn line(number: u64, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        Record { number, body: Body::Line(text.as_bytes().to_vec()) }.encode_into(&mut bytes);
        bytes
    }

    fn numbers(spool: &mut Spool) -> Vec<u64> {
        spool.read(0).unwrap().iter().map(|record| record.number).collect()
    }

    #[test]
    fn a_record_that_is_still_being_written_is_waited_for_wherever_it_stands() {
        let directory = tempfile::tempdir().unwrap();
        let segment = |first: u64| directory.path().join(segment_name(first));
        let mut spool = Spool::open(directory.path(), 0, 1 << 20).unwrap();
        let (one, two, three) = (line(1, "one"), line(2, "two"), line(3, "three"));
        // The first of its segment: that bears its name.
        fs::write(segment(1), &one[..one.len() / 2]).unwrap();
        assert_eq!((numbers(&mut spool), numbers(&mut spool)), (vec![], vec![]));
        fs::write(segment(1), [&one[..], &two[..two.len() / 2]].concat()).unwrap();
        assert_eq!((numbers(&mut spool), numbers(&mut spool)), (vec![1], vec![]));
        fs::write(segment(1), [&one[..], &two[..]].concat()).unwrap();
        assert_eq!(numbers(&mut spool), [2]);
        fs::write(segment(3), &three[..three.len() / 2]).unwrap();
        assert_eq!((numbers(&mut spool), numbers(&mut spool)), (vec![], vec![]));
        fs::write(segment(3), &three).unwrap();
        assert_eq!(numbers(&mut spool), [3]);
    }

    #[test]
    fn a_record_that_is_there_in_part_behind_which_another_file_has_it_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 0, 1 << 20).unwrap();
        let (one, two) = (line(1, "one"), line(2, "two"));
        fs::write(directory.path().join(segment_name(1)), [&one[..], &two[..two.len() / 2]].concat()).unwrap();
        assert_eq!(numbers(&mut spool), [1]);
        fs::write(directory.path().join(segment_name(2)), &two).unwrap();
        assert!(matches!(spool.read(0), Err(SpoolError::Damaged(_))));
    }
}
