//! As much of protobuf's wire format as trackers' records need, both ways.
//!
//! <https://protobuf.dev/programming-guides/encoding>: a field is its number and wire type as a varint, then a varint
//! (type 0), eight bytes (1), a length and bytes (2), or four bytes (5). As in proto3, a default value is left out.

/// A message in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// An integer, an enumeration or a truth value.
    pub(crate) fn integer(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.key(field, 0);
            varint(&mut self.0, value);
        }
        self
    }

    /// A number of eight bytes; 0 is written too.
    pub(crate) fn double(mut self, field: u32, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A number of four bytes; 0 is written too, as one of several kinds of values.
    pub(crate) fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A text.
    pub(crate) fn text(self, field: u32, value: &str) -> Self {
        if value.is_empty() { self } else { self.bytes(field, value.as_bytes()) }
    }

    /// A message in the message; an empty one is written too.
    pub(crate) fn message(self, field: u32, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.key(field, 2);
        varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn key(&mut self, field: u32, wire_type: u64) {
        varint(&mut self.0, u64::from(field) << 3 | wire_type);
    }

    /// The encoded message.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
    }
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// The value of a field as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire<'a> {
    /// A varint, or eight or four bytes as an integer.
    Integer(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    /// Its bytes, if it has a length.
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Wire::Bytes(bytes) => Some(bytes),
            Wire::Integer(_) => None,
        }
    }
}

/// The fields of an encoded message in their order; ends early where it is no message.
pub(crate) fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u32, Wire<'_>)> {
    std::iter::from_fn(move || {
        let key = read_varint(&mut rest)?;
        let value = match key & 7 {
            0 => Wire::Integer(read_varint(&mut rest)?),
            1 => Wire::Integer(u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                Wire::Bytes(take(&mut rest, length)?)
            }
            5 => Wire::Integer(u64::from(u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_specification() {
        // The two examples of the encoding guide: 150 in field 1, "testing" in field 2.
        assert_eq!(Message::default().integer(1, 150).encoded(), [0x08, 0x96, 0x01]);
        let text = Message::default().text(2, "testing");
        assert_eq!(text.encoded(), [&[0x12, 0x07][..], b"testing"].concat());
    }

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().text(1, "a").integer(20, u64::MAX);
        let message = Message::default().integer(1, 0).text(2, "").message(300, &inner).integer(16, 300);
        let message = message.double(3, -2.5).float(4, 0.0);
        let found: Vec<(u32, Wire<'_>)> = fields(message.encoded()).collect();
        let numbers = [(3, Wire::Integer((-2.5f64).to_bits())), (4, Wire::Integer(0))];
        let others = [(300, Wire::Bytes(inner.encoded())), (16, Wire::Integer(300))];
        assert_eq!(found, [others, numbers].concat());
        let found: Vec<(u32, Wire<'_>)> = fields(inner.encoded()).collect();
        assert_eq!(found, [(1, Wire::Bytes(b"a")), (20, Wire::Integer(u64::MAX))]);
    }

    #[test]
    fn broken_bytes_end_the_fields() {
        for broken in
            [&[0x08][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1], &[0x0b], &[0xff; 12], &[0x09, 1]]
        {
            assert_eq!(fields(broken).count(), 0, "{broken:?}");
        }
    }
}
