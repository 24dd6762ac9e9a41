//! Incremental gzip decompression that verifies all members, checksums and lengths. No I/O, no threads.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{Error, Kind, Result};
use crate::panics;

/// The limit for a member header. The extra field alone may have 64 KiB; names and comments have no limit in the format.
const MAX_HEADER: usize = 256 << 10;
/// The spare capacity that [`Gunzip::push`] reserves at a time.
const ROOM: usize = 64 << 10;

/// Limits against decompression bombs.
#[derive(Debug, Clone, PartialEq)]
pub struct UnpackLimits {
    /// The maximum ratio of decompressed to compressed bytes, checked beyond `free_bytes`. Deflate cannot exceed 1032.
    pub max_ratio: u64,
    /// The number of decompressed bytes up to which the ratio is not checked.
    pub free_bytes: u64,
    /// The maximum size of one object in bytes, both compressed and decompressed.
    pub max_bytes: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { max_ratio: 500, free_bytes: 1 << 30, max_bytes: u64::MAX }
    }
}

/// Decompresses a gzip file that arrives in pieces of any size.
///
/// Several members are concatenated, as by `gzip -d`. Anything besides members, even zero padding, is an error, and so is an end within a
/// member or before the first one: a truncated file must never pass for a complete one. After an error the value must be dropped.
pub struct Gunzip {
    inflate: Decompress,
    state: State,
    /// The bytes of the current header or trailer.
    head: Vec<u8>,
    crc: crc32fast::Hasher,
    /// The length of the member modulo 2^32, as in its trailer.
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

/// The result of a step.
pub(super) struct Step {
    /// The number of consumed input bytes.
    pub(super) consumed: usize,
    /// Whether the output was full, so that more may follow without further input.
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
    /// A decompressor for one object.
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

    /// Decompresses the next piece and appends the result to `out`. Fails with kind `Data` if the file is damaged or exceeds a limit.
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

    /// Ends the file. Fails with kind `Data` if it is truncated.
    pub fn finish(&self) -> Result<()> {
        match self.state {
            State::Header if self.head.is_empty() && self.members > 0 => Ok(()),
            State::Header if self.head.is_empty() => Err(self.error("The object is empty, which a gzip file never is")),
            _ => Err(self.error("The object is truncated: it ends within a gzip member")),
        }
    }

    /// The number of compressed bytes so far.
    pub fn total_in(&self) -> u64 {
        self.total_in
    }

    /// The number of decompressed bytes so far.
    pub fn total_out(&self) -> u64 {
        self.total_out
    }

    /// Decompresses until the input is used up or the spare capacity of `out` is full. Never reallocates `out`.
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
            .map_err(|panicked| panicked.into_error(Kind::Data, "The object cannot be decompressed; it is probably damaged"))?;
        let taken = (self.inflate.total_in() - had_in) as usize;
        let fresh = &out[had_out..];
        self.crc.update(fresh);
        self.member_len = self.member_len.wrapping_add(fresh.len() as u32);
        self.total_in += taken as u64;
        self.total_out += fresh.len() as u64;
        let made_none = fresh.is_empty();
        let status =
            status.map_err(|error| self.error("The object is damaged: its data cannot be decompressed").caused_by(error))?;
        self.check_limits()?;
        match status {
            Status::StreamEnd => {
                self.state = State::Trailer;
                self.head.clear();
                Ok((taken, true))
            }
            // No progress in spite of input and spare capacity: the data is damaged.
            Status::Ok | Status::BufError if taken == 0 && made_none && !input.is_empty() => {
                Err(self.error("The object is damaged: its compressed data is incomplete"))
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
                return Err(self.error("The object is damaged: the checksum of a gzip member is wrong"));
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
        // Most headers are short and need one pass only.
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
            Err(NotAHeader::Magic) if self.members > 0 => Err(self.error("The object has trailing bytes that are not gzip")),
            Err(NotAHeader::Magic) => Err(self.error("The object is not a gzip file")),
            Err(NotAHeader::Method) => Err(self.error("The object is compressed with an unknown method")),
            Err(NotAHeader::Sum) => Err(self.error("The object is damaged: the checksum of a gzip header is wrong")),
        }
    }

    fn check_limits(&self) -> Result<()> {
        let UnpackLimits { max_ratio, free_bytes, max_bytes } = self.limits;
        if self.total_out.max(self.total_in) > max_bytes {
            let error = self.error("The object exceeds the size limit").with_field("max_bytes", max_bytes);
            return Err(error.hint("if the object is legitimate, raise --max-object"));
        }
        if self.total_out > free_bytes && self.total_out / self.total_in.max(1) > max_ratio {
            return Err(self
                .error("The object has an implausible compression ratio; it may be a decompression bomb")
                .with_field("max_ratio", max_ratio)
                .hint("if the object is legitimate, raise --max-unpack-ratio"));
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

/// The length of the header at the start of `bytes` (RFC 1952); `None` if more bytes are needed.
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
