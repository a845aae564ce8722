//! The kinds of request that clients and nodes send each other, one byte on the wire.
//!
//! Numbers are never reused. Kinds between nodes only start at 32.

/// [`crate::CallRequest`] → `Result<CallReply, CallError>`.
pub const CALL: u8 = 1;
/// [`crate::ListRequest`] → `Result<ListReply, CallError>`.
pub const LIST: u8 = 2;
/// Empty → [`crate::RouteMap`].
pub const ROUTES: u8 = 3;
/// An exchange: [`crate::CallRequest`] of [`crate::CallOp::Http`] with its body → an answer with its body.
pub const HTTP: u8 = 4;
/// [`crate::ListRequest`] → `Result<ViewReply, CallError>`. An earlier release refuses it as unknown.
pub const VIEWS: u8 = 5;
/// [`crate::CallRequest`] of an operation that [`crate::CallOp::is_look`] → `Result<CallReply, CallError>`. An earlier release
/// refuses it as unknown, where it could only say of a [`CALL`] that it does not decode.
pub const LOOK: u8 = 6;
