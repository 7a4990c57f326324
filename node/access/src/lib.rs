//! Who a caller is, and what it may do.
//!
//! A call shows [`Credentials`]. [`Access`] makes a [`Caller`] of them, or refuses them as [`Unauthenticated`]; then it
//! [decides](Policy::decide) whether the caller has a [`Permission`] on a topic, or says as [`Denied`] who, what, and which rule is
//! missing. What is refused and what is administered goes through [`Audit`].
//!
//! | module | what it is |
//! |---|---|
//! | [`Policy`] | a file of roles and grants: read, checked, and asked; pure |
//! | [`Tokens`] | a file of tokens, of which only the hashes are kept; pure |
//! | [`jwt`] | tokens that an issuer signed, checked against its public keys; pure |
//! | [`ApiServer`] | tokens of Kubernetes ServiceAccounts, about which the API server is asked: the only part that waits |
//! | [`Access`] | all of it in force, by the files' contents, with the last good ones where a file is broken |
//! | [`Audit`] | lines of JSON about refusals and administrative calls, at a bounded rate; pure but for where they go |
//!
//! What is not here: TLS and the names in certificates (whoever accepts connections tells them), the environment and flags, and
//! which permission a call needs (the edges know that).

mod access;
mod audit;
mod caller;
mod decision;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod jwt;
mod pattern;
mod permission;
mod policy;
mod review;
mod tokens;
mod watched;
mod words;

pub use access::{Access, Credentials, Files, InForce, LoadError, News, Outcome, Unauthenticated};
pub use audit::{Audit, Call, Happened};
pub use caller::{Caller, CallerError, Means};
pub use decision::{Decision, Denied, Filter};
pub use pattern::Pattern;
pub use permission::{Permission, Target};
pub use policy::{Grant, JwtIssuer, Kubernetes, Policy, PolicyError, Role, Rule, Subject};
pub use review::{ApiServer, ReviewError};
pub use tokens::{Minted, TokenError, Tokens, TokensError};
