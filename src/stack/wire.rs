//! The stack protocol: the bytes of requests and responses.
//!
//! A push request and a pop response have the same form: a header with the length (1 to 127), and the
//! payload. An [`Item`] is kept in that form, so it goes out as it came in.

use std::fmt;

/// The length of the longest item, in bytes: the largest number of seven bits.
pub const MAX_ITEM: usize = 127;

/// The bit that tells a pop request from a push request's length.
pub const POP: u8 = 0b1000_0000;

/// The response to a push.
pub const STORED: &[u8] = &[0x00];

/// The response to a client that is rejected. No item is that long, so it cannot be mistaken for a
/// pop response.
pub const BUSY: &[u8] = &[0xFF];

/// An item of the stack: 1 to [`MAX_ITEM`] bytes.
///
/// ```
/// use pollstack::stack::wire::Item;
///
/// let item = Item::new(b"hello").unwrap();
/// assert_eq!(item.payload(), b"hello");
/// assert_eq!(item.frame(), b"\x05hello");
/// assert!(Item::new(b"").is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The header, the payload, and zeros.
    frame: [u8; 1 + MAX_ITEM],
}

impl Item {
    /// Makes an item of these bytes; `None` unless there are 1 to [`MAX_ITEM`].
    pub fn new(payload: &[u8]) -> Option<Self> {
        let header = u8::try_from(payload.len()).ok().filter(|len| (1..POP).contains(len))?;
        let mut frame = [0; 1 + MAX_ITEM];
        frame[0] = header;
        frame[1..=payload.len()].copy_from_slice(payload);
        Some(Item { frame })
    }

    /// Returns the bytes that were pushed.
    pub fn payload(&self) -> &[u8] {
        &self.frame()[1..]
    }

    /// Returns the bytes that push it, which are also those of the response to a pop.
    pub fn frame(&self) -> &[u8] {
        &self.frame[..=usize::from(self.frame[0])]
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item(\"{}\")", self.payload().escape_ascii())
    }
}

/// A request. There are no others, so a `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Puts an item of these bytes on the stack.
    Push(&'a [u8]),
    /// Takes the top item.
    Pop,
}

/// The meaning of a client's bytes so far. A `match` may be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The beginning of a request.
    Incomplete,
    /// A complete request, and its length in bytes. Bytes behind it are ignored.
    Request(Request<'a>, usize),
    /// A push of zero bytes, which is not a request.
    Empty,
}

/// Parses all bytes of a client, from the first on. A call looks at the header and at the length only,
/// however often it is repeated while the rest arrives.
///
/// ```
/// use pollstack::stack::wire::{Parsed, Request, parse};
///
/// assert_eq!(parse(b"\x05hel"), Parsed::Incomplete);
/// assert_eq!(parse(b"\x05hello"), Parsed::Request(Request::Push(b"hello"), 6));
/// assert_eq!(parse(b"\x80"), Parsed::Request(Request::Pop, 1));
/// ```
pub fn parse(input: &[u8]) -> Parsed<'_> {
    let Some((&header, rest)) = input.split_first() else { return Parsed::Incomplete };
    match header {
        0 => Parsed::Empty,
        POP.. => Parsed::Request(Request::Pop, 1),
        len => match rest.get(..usize::from(len)) {
            Some(payload) => Parsed::Request(Request::Push(payload), 1 + payload.len()),
            None => Parsed::Incomplete,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Lost otherwise: requests that the network cuts into pieces.
        #[test]
        fn a_request_is_the_same_however_it_arrives(
            payload in prop::collection::vec(any::<u8>(), 1..=MAX_ITEM),
            trailing in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let item = Item::new(&payload).unwrap();
            let mut bytes = item.frame().to_vec();
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete);
            }
            bytes.extend(trailing);
            for cut in item.frame().len()..=bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::Request(Request::Push(&payload), 1 + payload.len()));
            }
        }

        /// Lost otherwise: the server, to a client that sends the right bytes.
        #[test]
        fn parses_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            match parse(&bytes) {
                Parsed::Incomplete => prop_assert!(bytes.len() <= usize::from(*bytes.first().unwrap_or(&0))),
                Parsed::Request(Request::Pop, len) => prop_assert!(bytes[0] >= 0x80 && len == 1),
                Parsed::Request(Request::Push(payload), len) => prop_assert_eq!(&bytes[1..len], payload),
                Parsed::Empty => prop_assert_eq!(bytes[0], 0),
            }
        }
    }

    /// Lost otherwise: the end of an item that is too long for its header, or the pop bit.
    #[test]
    fn an_item_has_1_to_127_bytes() {
        assert!(Item::new(&[]).is_none());
        assert!(Item::new(&[7; MAX_ITEM + 1]).is_none());
        assert!(Item::new(&[7; 300]).is_none());
        assert_eq!(Item::new(&[7; MAX_ITEM]).unwrap().frame().len(), 128);
    }
}
