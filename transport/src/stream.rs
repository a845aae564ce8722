//! One-way streams of their own, for bodies larger than a frame: snapshots.
//!
//! Invariant: a receiver sees the end of a stream only if the sender finished it. A sender that is dropped, or lost,
//! leaves an error, never a short stream that looks whole.
//! Not here: checksums and resuming (`storage`).

use bytes::{BufMut, Bytes, BytesMut};
use quinn::VarInt;

use crate::lane::STREAM_VERSION;
use crate::{PeerId, StreamError};

/// Longest header of a stream, in bytes.
pub const STREAM_HEADER_MAX: usize = 64 << 10;

/// Code of a stream given up by its sender or receiver.
const ABANDONED: u32 = 1;
/// Bytes before the header: version, kind, length.
const PREAMBLE_BYTES: usize = 6;
/// Most bytes given out at once.
const READ_MAX: usize = 256 << 10;

/// The sending end. Dropped before [`OutStream::finish`], it tells the receiver that the stream broke off.
#[derive(Debug)]
pub struct OutStream {
    stream: quinn::SendStream,
    peer: PeerId,
    finished: bool,
}

impl OutStream {
    /// Around a stream that is open.
    pub(crate) fn over(stream: quinn::SendStream, peer: PeerId) -> Self {
        // A stream that was closed under us fails at its first write.
        let _ = stream.set_priority(crate::lane::STREAM_PRIORITY);
        Self {
            stream,
            peer,
            finished: false,
        }
    }

    /// Starts a stream with its header (at most [`STREAM_HEADER_MAX`], checked by the caller).
    pub(crate) async fn start(
        stream: quinn::SendStream,
        peer: PeerId,
        kind: u8,
        header: &[u8],
    ) -> Result<Self, StreamError> {
        let mut out = Self::over(stream, peer);
        let mut preamble = BytesMut::with_capacity(PREAMBLE_BYTES + header.len());
        preamble.put_u8(STREAM_VERSION);
        preamble.put_u8(kind);
        preamble.put_u32_le(header.len() as u32);
        preamble.put_slice(header);
        out.write(preamble.freeze()).await?;
        Ok(out)
    }

    /// Hands bytes to QUIC; waits while the receiver is behind.
    ///
    /// # Errors
    /// When the receiver stopped the stream or the connection is lost.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.stream
            .write_chunk(bytes)
            .await
            .map_err(|e| broke(&self.peer, e))
    }

    /// Returns when the receiver wants no more, or is lost. Cancel-safe.
    pub fn refused(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            // `None`: everything was received, which only the end of a finished stream can say.
            let _why = stopped.await;
        }
    }

    /// Ends the stream; returns once the receiver's QUIC has every byte (not: once its application has read them).
    ///
    /// # Errors
    /// When the receiver stopped the stream or the connection is lost.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        self.stream.finish().map_err(|e| broke(&self.peer, e))?;
        self.finished = true;
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(broke(
                &self.peer,
                format!("the receiver stopped it (code {code})"),
            )),
            Err(error) => Err(broke(&self.peer, error)),
        }
    }
}

impl Drop for OutStream {
    fn drop(&mut self) {
        if !self.finished {
            // quinn would finish it, and the receiver would take half a snapshot for a whole one.
            let _ = self.stream.reset(VarInt::from_u32(ABANDONED));
        }
    }
}

/// The receiving end. Dropped before its end, it stops the sender.
#[derive(Debug)]
pub struct InStream {
    stream: quinn::RecvStream,
    peer: PeerId,
}

impl InStream {
    /// Around a stream that is open.
    pub(crate) fn over(stream: quinn::RecvStream, peer: PeerId) -> Self {
        Self { stream, peer }
    }

    /// The next bytes, in order; `None` at the end the sender set. Cancel-safe.
    ///
    /// # Errors
    /// When the sender gave up or the connection is lost.
    pub async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        match self.stream.read_chunk(READ_MAX, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(error) => Err(broke(&self.peer, error)),
        }
    }

    /// Reads what [`OutStream::start`] wrote first: kind and header.
    pub(crate) async fn accept(
        stream: quinn::RecvStream,
        peer: PeerId,
    ) -> Result<(u8, Bytes, Self), StreamError> {
        let mut stream = Self::over(stream, peer);
        let mut preamble = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut preamble).await?;
        let [version, kind, length @ ..] = preamble;
        let len = u32::from_le_bytes(length) as usize;
        if version != STREAM_VERSION {
            return Err(broke(
                &stream.peer,
                format!("stream version {version}, this release reads {STREAM_VERSION}"),
            ));
        }
        if len > STREAM_HEADER_MAX {
            let reason = format!("stream header of {len} bytes, at most {STREAM_HEADER_MAX} are allowed");
            return Err(broke(&stream.peer, reason));
        }
        let header = stream.read_header(len).await?;
        Ok((kind, header, stream))
    }

    /// Fills the buffer. Not cancel-safe.
    pub(crate) async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), StreamError> {
        self.stream
            .read_exact(buffer)
            .await
            .map_err(|e| broke(&self.peer, e))
    }

    /// Reads `len` bytes, which the caller has checked; room is made as they come. Not cancel-safe.
    pub(crate) async fn read_header(&mut self, len: usize) -> Result<Bytes, StreamError> {
        let mut header = BytesMut::new();
        while header.len() < len {
            let chunk = self.stream.read_chunk(len - header.len(), true).await;
            match chunk.map_err(|e| broke(&self.peer, e))? {
                Some(chunk) => header.extend_from_slice(&chunk.bytes),
                None => return Err(broke(&self.peer, "it ended inside its header")),
            }
        }
        Ok(header.freeze())
    }
}

pub(crate) fn broke(peer: &PeerId, reason: impl ToString) -> StreamError {
    StreamError {
        peer: peer.to_string(),
        reason: reason.to_string(),
    }
}
