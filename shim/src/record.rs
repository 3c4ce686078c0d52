//! The spool's format: numbered, checksummed records in segment files.
//!
//! A record is a header of fixed size (payload length `u32`, CRC-32 `u32` over all that follows, number
//! `u64`, kind `u8`; little endian) and its payload. A segment is a file of whole records, named by the
//! first one's number.

use serde::{Deserialize, Serialize};

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 17;
/// Where what the checksum covers begins.
const CHECKED_FROM: usize = 8;
const LINE: u8 = 1;
const LONG_LINE: u8 = 2;
const EXIT: u8 = 3;

/// One entry of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// 1 for the first, no gaps.
    pub number: u64,
    /// What happened.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The agent wrote a line to stdout; without its newline.
    Line(Vec<u8>),
    /// It wrote a line that was too long to keep.
    LongLine {
        /// How long it was, in bytes.
        bytes: u64,
    },
    /// The agent is gone, and so is all that it started.
    Exit(Exit),
}

/// How an agent ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Which start it was: 1 for the first.
    pub run: u64,
    /// Its exit code; 128 + signal when a signal killed it.
    pub code: Option<i64>,
    /// Whether something was killed for memory while it ran.
    pub oom: bool,
    /// The end of what it wrote to stderr.
    pub stderr_tail: String,
}

/// Bytes that no shim wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(&'static str);

impl std::fmt::Display for Corrupt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Corrupt {}

impl Record {
    /// Adds the record's bytes to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let (kind, payload): (u8, &[u8]) = match &self.body {
            Body::Line(line) => (LINE, line),
            Body::LongLine { bytes } => (LONG_LINE, &bytes.to_le_bytes()),
            // Plain fields encode; an empty payload would be told apart by the reader.
            Body::Exit(exit) => (EXIT, &serde_json::to_vec(exit).unwrap_or_default()),
        };
        let start = out.len();
        // Callers keep lines far below that.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.push(kind);
        out.extend_from_slice(payload);
        let checksum = crc32fast::hash(&out[start + CHECKED_FROM..]);
        out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Reads the first record of `bytes`, and how many of them it takes; `None` when more are needed. No
/// payload may be longer than `max_payload`.
pub fn decode(bytes: &[u8], max_payload: usize) -> Result<Option<(Record, usize)>, Corrupt> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length > max_payload {
        return Err(Corrupt("a record is too long"));
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let checksum = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if crc32fast::hash(&bytes[CHECKED_FROM..HEADER_BYTES + length]) != checksum {
        return Err(Corrupt("a record's checksum is wrong"));
    }
    let number = u64::from_le_bytes([
        header[8], header[9], header[10], header[11], header[12], header[13], header[14], header[15],
    ]);
    let body = match header[16] {
        LINE => Body::Line(payload.to_vec()),
        LONG_LINE => {
            let bytes = payload.try_into().map_err(|_| Corrupt("a record has the wrong length"))?;
            Body::LongLine { bytes: u64::from_le_bytes(bytes) }
        }
        EXIT => Body::Exit(serde_json::from_slice(payload).map_err(|_| Corrupt("an exit can't be read"))?),
        _ => return Err(Corrupt("a record is of no known kind")),
    };
    Ok(Some((Record { number, body }, HEADER_BYTES + length)))
}

/// The name of the segment whose first record is `first`.
pub fn segment_name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// The first record of the segment called `name`; `None` when it is no segment's name.
pub fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies() -> impl Strategy<Value = Body> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60).prop_map(Body::Line),
            any::<u64>().prop_map(|bytes| Body::LongLine { bytes }),
            (any::<u64>(), any::<Option<i64>>(), any::<bool>(), ".{0,20}")
                .prop_map(|(run, code, oom, stderr_tail)| { Body::Exit(Exit { run, code, oom, stderr_tail }) }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_from_any_beginning_of_the_bytes(bodies in prop::collection::vec(bodies(), 1..8)) {
            let records: Vec<Record> =
                (1..).zip(bodies).map(|(number, body)| Record { number, body }).collect();
            let mut bytes = Vec::new();
            for record in &records {
                record.encode_into(&mut bytes);
            }
            for cut in 0..=bytes.len() {
                let (mut at, mut read) = (0, Vec::new());
                while let Some((record, taken)) = decode(&bytes[at..cut], 1 << 10).unwrap() {
                    at += taken;
                    read.push(record);
                }
                prop_assert_eq!(&read[..], &records[..read.len()]);
                prop_assert!(cut < bytes.len() || read.len() == records.len());
            }
        }

        #[test]
        fn a_flipped_byte_is_seen(body in bodies(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = Vec::new();
            let record = Record { number: 7, body };
            record.encode_into(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // Corrupt, or waiting for bytes that never come: never another record.
            prop_assert!(!matches!(decode(&bytes, 1 << 10), Ok(Some(_))));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 100);
        }
    }

    #[test]
    fn segments_are_named_by_their_first_record() {
        assert_eq!(segment_name(42), "00000000000000000042.seg");
        assert_eq!(parse_segment_name(&segment_name(u64::MAX)), Some(u64::MAX));
        for bad in ["42.seg", "00000000000000000042", "0000000000000000004x.seg", "+0000000000000000042.seg"] {
            assert_eq!(parse_segment_name(bad), None, "{bad}");
        }
    }
}
