//! Keys, as terminals send them.

/// A key that means something while a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Enter,
    /// Takes back a character.
    Erase,
    /// Takes back all of them: Ctrl-U.
    EraseAll,
    /// Ctrl-D.
    Leave,
    Character(char),
}

/// A key, if these bytes are one that means something, and how many they are.
type Read = (usize, Option<Key>);

/// Takes the next key that means something. `None`: more bytes have to come.
pub(super) fn take_key(bytes: &mut Vec<u8>) -> Option<Key> {
    loop {
        let (length, key) = first(bytes)?;
        bytes.drain(..length);
        if key.is_some() {
            return key;
        }
    }
}

fn first(bytes: &[u8]) -> Option<Read> {
    let key = match *bytes.first()? {
        b'\r' | b'\n' => Some(Key::Enter),
        0x08 | 0x7f => Some(Key::Erase),
        0x15 => Some(Key::EraseAll),
        0x04 => Some(Key::Leave),
        0x1b => return escape(bytes),
        control if control < b' ' => None,
        _ => return character(bytes),
    };
    Some((1, key))
}

/// Arrows are `ESC [ A`, with parameters between when Shift and the like are held (ECMA-48 §5.4), or
/// `ESC O A` (VT100's application mode).
fn escape(bytes: &[u8]) -> Option<Read> {
    let last = match bytes.get(1)? {
        b'[' => 2 + bytes[2..].iter().position(|byte| !(0x20..=0x3f).contains(byte))?,
        b'O' => 2,
        // The Escape key alone, or Alt with another.
        _ => return Some((1, None)),
    };
    match bytes.get(last)? {
        b'A' => Some((last + 1, Some(Key::Up))),
        b'B' => Some((last + 1, Some(Key::Down))),
        0x40..=0x7e => Some((last + 1, None)),
        // Broken off by something else.
        _ => Some((last, None)),
    }
}

fn character(bytes: &[u8]) -> Option<Read> {
    let character = |text: &str| {
        let character = text.chars().next()?;
        Some((character.len_utf8(), (!character.is_control()).then_some(Key::Character(character))))
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => character(text),
        Err(error) if error.valid_up_to() == 0 => error.error_len().map(|length| (length, None)),
        Err(error) => character(std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> (Vec<Key>, Vec<u8>) {
        let mut bytes = bytes.to_vec();
        (std::iter::from_fn(|| take_key(&mut bytes)).collect(), bytes)
    }

    #[test]
    fn arrows_are_known_in_all_their_spellings() {
        let (found, rest) = keys(b"\x1b[A\x1b[B\x1bOA\x1bOB\x1b[1;2A");
        assert_eq!(found, [Key::Up, Key::Down, Key::Up, Key::Down, Key::Up]);
        assert!(rest.is_empty());
    }

    #[test]
    fn keys_that_mean_nothing_leave_the_others_alone() {
        // Right, Delete, F1, Escape, Alt-x, Tab, a broken sequence and a broken character.
        let (found, rest) = keys(b"\x1b[C\x1b[3~\x1bOP\x1b\x1bx\t\x1b[1\r\xffy");
        assert_eq!(found, [Key::Character('x'), Key::Enter, Key::Character('y')]);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_key_that_comes_in_pieces_is_one_key() {
        for whole in ["\x1b[A", "\x1b[1;2A", "\x1bOA", "é", "😀"] {
            let whole = whole.as_bytes();
            for end in 0..whole.len() {
                assert_eq!(keys(&whole[..end]), (vec![], whole[..end].to_vec()), "{whole:?}");
            }
            assert_eq!(keys(whole).0.len(), 1, "{whole:?}");
        }
    }

    #[test]
    fn the_keys_that_edit_and_end() {
        assert_eq!(
            keys(b"\x7f\x08\x15\x04\r\n").0,
            [Key::Erase, Key::Erase, Key::EraseAll, Key::Leave, Key::Enter, Key::Enter]
        );
    }
}
