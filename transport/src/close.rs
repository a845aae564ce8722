//! Why connections end: the codes we close them with, and the words for how the other side ended them.

use quinn::{ConnectionError, TransportErrorCode, VarInt};

/// This process is shutting down.
pub(crate) const SHUTDOWN: VarInt = VarInt::from_u32(0);
/// The peer broke the protocol.
pub(crate) const MALFORMED: VarInt = VarInt::from_u32(1);
/// The peer is not who it should be, or of another cluster.
pub(crate) const WRONG_PEER: VarInt = VarInt::from_u32(2);
/// The dialler no longer needs it.
pub(crate) const UNUSED: VarInt = VarInt::from_u32(3);

/// TLS alert: no common application protocol.
const NO_COMMON_PROTOCOL: u8 = 120;

/// What happened to a connection, in words that name the side that ended it.
pub(crate) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(e) => match alert(e.code) {
            Some(NO_COMMON_PROTOCOL) => "it speaks no wire version of ours".to_owned(),
            Some(_) => format!("its certificate is not valid in our cluster: {}", e.reason),
            None => format!("it broke the QUIC protocol: {e}"),
        },
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(NO_COMMON_PROTOCOL) => "it speaks no wire version of ours".to_owned(),
            Some(_) => format!("it does not accept our certificate in its cluster: {close}"),
            None => format!("its QUIC closed the connection: {close}"),
        },
        ConnectionError::ApplicationClosed(close) => {
            format!(
                "it closed the connection: {}",
                String::from_utf8_lossy(&close.reason)
            )
        }
        ConnectionError::Reset => "it was restarted".to_owned(),
        ConnectionError::TimedOut => "it fell silent".to_owned(),
        ConnectionError::LocallyClosed => "closed here".to_owned(),
        ConnectionError::VersionMismatch => "it speaks no QUIC version of ours".to_owned(),
        ConnectionError::CidsExhausted => "connection ids exhausted".to_owned(),
    }
}

/// Whether the two do not belong together: a certificate, cluster or wire version that does not fit.
pub(crate) fn is_misfit(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::TransportError(e) => alert(e.code).is_some(),
        ConnectionError::ConnectionClosed(close) => alert(close.error_code).is_some(),
        ConnectionError::ApplicationClosed(close) => close.error_code == WRONG_PEER,
        ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => false,
    }
}

/// The TLS alert in a QUIC error code: QUIC keeps 0x100 to 0x1ff for them.
fn alert(code: TransportErrorCode) -> Option<u8> {
    u8::try_from(u64::from(code).checked_sub(0x100)?).ok()
}
