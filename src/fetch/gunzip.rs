//! Gzip, unpacked piece by piece: all members, every check sum, every length. No I/O, no threads.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{Error, Kind, Result};
use crate::panics;

/// Longest member header: the extra field alone may have 64 KiB; names and comments have no limit of their own.
const MAX_HEADER: usize = 256 << 10;
/// How much room is made at a time by [`Gunzip::push`].
const ROOM: usize = 64 << 10;

/// Guards against objects that unpack into far more than anybody wants.
#[derive(Debug, Clone, PartialEq)]
pub struct UnpackLimits {
    /// Largest ratio of unpacked to packed bytes, looked at once `free_bytes` are passed. Deflate cannot exceed 1032.
    pub max_ratio: u64,
    /// Unpacked bytes up to which any ratio is fine.
    pub free_bytes: u64,
    /// Largest size of one object, as it is stored and as it is read.
    pub max_bytes: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { max_ratio: 500, free_bytes: 1 << 30, max_bytes: u64::MAX }
    }
}

/// Unpacks a gzip file that comes in pieces of any size.
///
/// Members are joined, as `gzip -d` does. Anything but members (even zero padding) is an error, and so is an end within a
/// member or before the first one: a file that was cut short must never pass for a whole one. After an error it is useless.
pub struct Gunzip {
    inflate: Decompress,
    state: State,
    /// The header or trailer read so far.
    head: Vec<u8>,
    crc: crc32fast::Hasher,
    /// Length of the member modulo 2^32, as in its trailer.
    member_len: u32,
    members: u64,
    total_in: u64,
    total_out: u64,
    limits: UnpackLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Body,
    Trailer,
}

/// What one step did.
pub(super) struct Step {
    /// Bytes of the input that were used up.
    pub(super) consumed: usize,
    /// There was not enough room; more output may be waiting even without input.
    pub(super) is_full: bool,
}

impl fmt::Debug for Gunzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gunzip")
            .field("state", &self.state)
            .field("members", &self.members)
            .field("total_in", &self.total_in)
            .field("total_out", &self.total_out)
            .finish_non_exhaustive()
    }
}

impl Default for Gunzip {
    fn default() -> Self {
        Self::new(UnpackLimits::default())
    }
}

impl Gunzip {
    /// One per object.
    pub fn new(limits: UnpackLimits) -> Self {
        Self {
            inflate: Decompress::new(false),
            state: State::Header,
            head: Vec::new(),
            crc: crc32fast::Hasher::new(),
            member_len: 0,
            members: 0,
            total_in: 0,
            total_out: 0,
            limits,
        }
    }

    /// Takes the next piece and appends all that comes out of it.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut rest = input;
        loop {
            if out.capacity() == out.len() {
                out.reserve(ROOM);
            }
            let step = self.step(rest, out)?;
            rest = &rest[step.consumed..];
            if rest.is_empty() && !step.is_full {
                return Ok(());
            }
        }
    }

    /// The end of the file: it must be the end of a member.
    pub fn finish(&self) -> Result<()> {
        match self.state {
            State::Header if self.head.is_empty() && self.members > 0 => Ok(()),
            State::Header if self.head.is_empty() => Err(self.error("The object is empty; a gzip file never is")),
            _ => Err(self.error("The object ends in the middle of a gzip member; it was cut short")),
        }
    }

    /// Bytes taken so far.
    pub fn total_in(&self) -> u64 {
        self.total_in
    }

    /// Bytes given so far.
    pub fn total_out(&self) -> u64 {
        self.total_out
    }

    /// Goes on until the input is used up or the spare capacity of `out` is filled. Never grows `out`.
    pub(super) fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            match self.state {
                State::Header | State::Trailer if rest.is_empty() => return Ok(Step { consumed, is_full: false }),
                State::Header => consumed += self.header(rest)?,
                State::Trailer => consumed += self.trailer(rest)?,
                State::Body => {
                    if out.len() == out.capacity() {
                        return Ok(Step { consumed, is_full: true });
                    }
                    let (taken, ended) = self.body(rest, out)?;
                    consumed += taken;
                    if !ended && consumed == input.len() && out.len() < out.capacity() {
                        return Ok(Step { consumed, is_full: false });
                    }
                }
            }
        }
    }

    fn body(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool)> {
        let (had_in, had_out) = (self.inflate.total_in(), out.len());
        let inflate = &mut self.inflate;
        let status = panics::caught(|| inflate.decompress_vec(input, out, FlushDecompress::None))
            .map_err(|panicked| panicked.into_error(Kind::Data, "The object cannot be unpacked; it is probably damaged"))?;
        let taken = (self.inflate.total_in() - had_in) as usize;
        let fresh = &out[had_out..];
        self.crc.update(fresh);
        self.member_len = self.member_len.wrapping_add(fresh.len() as u32);
        self.total_in += taken as u64;
        self.total_out += fresh.len() as u64;
        let made_none = fresh.is_empty();
        let status = status
            .map_err(|error| self.error("The object is damaged: its compressed data cannot be unpacked").caused_by(error))?;
        self.check_limits()?;
        match status {
            Status::StreamEnd => {
                self.state = State::Trailer;
                self.head.clear();
                Ok((taken, true))
            }
            // Room and input were there, but nothing happened: it never will.
            Status::Ok | Status::BufError if taken == 0 && made_none && !input.is_empty() => {
                Err(self.error("The object is damaged: its compressed data does not go on"))
            }
            Status::Ok | Status::BufError => Ok((taken, false)),
        }
    }

    fn trailer(&mut self, input: &[u8]) -> Result<usize> {
        let taken = input.len().min(8 - self.head.len());
        self.head.extend_from_slice(&input[..taken]);
        self.total_in += taken as u64;
        if let Ok([a, b, c, d, e, f, g, h]) = <[u8; 8]>::try_from(self.head.as_slice()) {
            if u32::from_le_bytes([a, b, c, d]) != self.crc.clone().finalize() {
                return Err(self.error("The object is damaged: the check sum of a gzip member is wrong"));
            }
            if u32::from_le_bytes([e, f, g, h]) != self.member_len {
                return Err(self.error("The object is damaged: the length of a gzip member is wrong"));
            }
            self.members += 1;
            self.head.clear();
            self.crc.reset();
            self.member_len = 0;
            self.inflate.reset(false);
            self.state = State::Header;
        }
        Ok(taken)
    }

    fn header(&mut self, input: &[u8]) -> Result<usize> {
        let had = self.head.len();
        // Headers are short; only odd ones take a second round.
        let taken = input.len().min(had.max(64));
        self.head.extend_from_slice(&input[..taken]);
        match header_len(&self.head) {
            Ok(Some(len)) => {
                let taken = len - had;
                self.head.clear();
                self.total_in += taken as u64;
                self.state = State::Body;
                Ok(taken)
            }
            Ok(None) if self.head.len() > MAX_HEADER => Err(self.error("The object is damaged: a gzip header does not end")),
            Ok(None) => {
                self.total_in += taken as u64;
                Ok(taken)
            }
            Err(NotAHeader::Magic) if self.members > 0 => {
                Err(self.error("The object has bytes after its end that are not gzip"))
            }
            Err(NotAHeader::Magic) => Err(self.error("The object is not a gzip file")),
            Err(NotAHeader::Method) => Err(self.error("The object is compressed by an unknown method")),
            Err(NotAHeader::Sum) => Err(self.error("The object is damaged: the check sum of a gzip header is wrong")),
        }
    }

    fn check_limits(&self) -> Result<()> {
        let UnpackLimits { max_ratio, free_bytes, max_bytes } = self.limits;
        if self.total_out.max(self.total_in) > max_bytes {
            let error = self.error("The object is larger than is allowed").with_field("max_bytes", max_bytes);
            return Err(error.hint("if such objects are to be expected, raise --max-object"));
        }
        if self.total_out > free_bytes && self.total_out / self.total_in.max(1) > max_ratio {
            return Err(self
                .error("The object unpacks to implausibly much; it may be made to fill the disk")
                .with_field("max_ratio", max_ratio)
                .hint("if such objects are to be expected, raise --max-unpack-ratio"));
        }
        Ok(())
    }

    fn error(&self, message: &'static str) -> Error {
        Error::new(Kind::Data, message)
            .with_field("gzip_member", self.members + 1)
            .with_field("packed_bytes", self.total_in)
            .with_field("unpacked_bytes", self.total_out)
    }
}

enum NotAHeader {
    Magic,
    Method,
    Sum,
}

/// Length of the header that `bytes` begins with; `None`: more bytes are needed (RFC 1952).
fn header_len(bytes: &[u8]) -> Result<Option<usize>, NotAHeader> {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    if bytes.iter().zip(MAGIC).any(|(found, wanted)| *found != wanted) {
        return Err(NotAHeader::Magic);
    }
    let Some(fixed) = bytes.get(..10) else { return Ok(None) };
    let flags = fixed[3];
    if fixed[2] != 8 || flags & 0xe0 != 0 {
        return Err(NotAHeader::Method);
    }
    let mut at = 10;
    if flags & 0x04 != 0 {
        let Some(&[low, high]) = bytes.get(at..at + 2) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    for text in [0x08, 0x10] {
        if flags & text != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & 0x02 != 0 {
        let Some(&[low, high]) = bytes.get(at..at + 2) else { return Ok(None) };
        if crc32fast::hash(&bytes[..at]) as u16 != u16::from_le_bytes([low, high]) {
            return Err(NotAHeader::Sum);
        }
        at += 2;
    }
    Ok((at <= bytes.len()).then_some(at))
}
