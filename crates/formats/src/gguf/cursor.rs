//! Bounded reading of a GGUF header: every length is checked against what is left before anything is allocated.

use super::value::{MetaArray, MetaValue};

/// Arrays inside arrays deeper than this are refused; real files have none.
const MAX_DEPTH: usize = 4;

/// A position in the header.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) problem: String,
}

type Read<T> = Result<T, Fault>;

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn fault<T>(&self, problem: impl Into<String>) -> Read<T> {
        Err(Fault { offset: self.position, problem: problem.into() })
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn take(&mut self, len: usize, what: &str) -> Read<&'a [u8]> {
        if len > self.left() {
            let left = self.left();
            return self.fault(format!("{what} needs {len} bytes, but the file ends after {left}"));
        }
        let taken = &self.bytes[self.position..self.position + len];
        self.position += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Read<[u8; N]> {
        Ok(*self.take(N, what)?.first_chunk().expect("take returned N bytes"))
    }

    pub(super) fn u32(&mut self, what: &str) -> Read<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Read<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each: more than fit into the rest of the file is a lie.
    pub(super) fn count(&mut self, least: usize, what: &str) -> Read<usize> {
        let at = self.position;
        let claimed = self.u64(what)?;
        let possible = self.left() / least;
        match usize::try_from(claimed) {
            Ok(count) if count <= possible => Ok(count),
            _ => {
                let problem =
                    format!("{what} is {claimed}, but the rest of the file has room for {possible} at most");
                Err(Fault { offset: at, problem })
            }
        }
    }

    pub(super) fn string(&mut self, what: &str) -> Read<String> {
        let at = self.position;
        let len = self.count(1, &format!("the length of {what}"))?;
        let bytes = self.take(len, what)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| Fault { offset: at, problem: format!("{what} is not UTF-8") })
    }

    /// A metadata value of the GGUF type `kind`.
    pub(super) fn value(&mut self, kind: u32, what: &str) -> Read<MetaValue> {
        Ok(match kind {
            0 => MetaValue::Unsigned(self.array::<1>(what)?[0].into()),
            1 => MetaValue::Signed(i8::from_le_bytes(self.array(what)?).into()),
            2 => MetaValue::Unsigned(u16::from_le_bytes(self.array(what)?).into()),
            3 => MetaValue::Signed(i16::from_le_bytes(self.array(what)?).into()),
            4 => MetaValue::Unsigned(self.u32(what)?.into()),
            5 => MetaValue::Signed(i32::from_le_bytes(self.array(what)?).into()),
            6 => MetaValue::F32(f32::from_le_bytes(self.array(what)?)),
            7 => MetaValue::Bool(self.bool(what)?),
            8 => MetaValue::String(self.string(what)?),
            9 => MetaValue::Array(self.elements(what, 0)?),
            10 => MetaValue::Unsigned(self.u64(what)?),
            11 => MetaValue::Signed(i64::from_le_bytes(self.array(what)?)),
            12 => MetaValue::F64(f64::from_le_bytes(self.array(what)?)),
            other => return self.fault(format!("{what} has the unknown value type {other}")),
        })
    }

    fn bool(&mut self, what: &str) -> Read<bool> {
        match self.array::<1>(what)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => self.fault(format!("{what} is a boolean of value {other}")),
        }
    }

    /// The element type, the count and the elements of an array.
    fn elements(&mut self, what: &str, depth: usize) -> Read<MetaArray> {
        if depth == MAX_DEPTH {
            return self.fault(format!("{what} nests arrays more than {MAX_DEPTH} deep"));
        }
        let kind = self.u32(what)?;
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10 | 11 => 8,
            12 => 8,
            9 => 12,
            other => return self.fault(format!("{what} has elements of the unknown value type {other}")),
        };
        let n = self.count(least, &format!("the element count of {what}"))?;
        Ok(match kind {
            0 => MetaArray::Unsigned(self.list(n, |c| Ok(c.array::<1>(what)?[0].into()))?),
            1 => MetaArray::Signed(self.list(n, |c| Ok(i8::from_le_bytes(c.array(what)?).into()))?),
            2 => MetaArray::Unsigned(self.list(n, |c| Ok(u16::from_le_bytes(c.array(what)?).into()))?),
            3 => MetaArray::Signed(self.list(n, |c| Ok(i16::from_le_bytes(c.array(what)?).into()))?),
            4 => MetaArray::Unsigned(self.list(n, |c| Ok(c.u32(what)?.into()))?),
            5 => MetaArray::Signed(self.list(n, |c| Ok(i32::from_le_bytes(c.array(what)?).into()))?),
            6 => MetaArray::F32(self.list(n, |c| Ok(f32::from_le_bytes(c.array(what)?)))?),
            7 => MetaArray::Bool(self.list(n, |c| c.bool(what))?),
            8 => MetaArray::String(self.list(n, |c| c.string(what))?),
            9 => MetaArray::Array(self.list(n, |c| c.elements(what, depth + 1))?),
            10 => MetaArray::Unsigned(self.list(n, |c| c.u64(what))?),
            11 => MetaArray::Signed(self.list(n, |c| Ok(i64::from_le_bytes(c.array(what)?)))?),
            _ => MetaArray::F64(self.list(n, |c| Ok(f64::from_le_bytes(c.array(what)?)))?),
        })
    }

    fn list<T>(&mut self, n: usize, mut element: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        (0..n).map(|_| element(self)).collect()
    }
}
