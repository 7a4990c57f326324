//! The names of things: topics, subscriptions, sessions, tokens, generations.

use std::fmt;

/// How often the cluster was forced to recover from a lost quorum; 0 at forming. It is part of every id that a client
/// may hold. So an id that was given out in a lost part of the log never names anything that is given out later.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// A topic: the log index of its creation, or the next free number where one entry creates several. A topic made
/// again under an old name is a new topic with a new id. Never 0.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u64);

/// A subscription within its topic. Every topic has [`SubscriptionId::DEFAULT`], which makes it a plain queue.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u32);

impl SubscriptionId {
    /// The subscription that every topic has from its creation on; its name is `default`.
    pub const DEFAULT: SubscriptionId = SubscriptionId(0);
    /// The name of [`SubscriptionId::DEFAULT`].
    pub const DEFAULT_NAME: &'static str = "default";
}

/// A producer's session: the generation in which it was opened and the log index of the opening (see [`TopicId`] for
/// several in one entry).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The generation in which it was opened.
    pub generation: Generation,
    /// Unique within a generation; never 0.
    pub number: u64,
}

/// The fencing token of a lease: a number that rises with every grant and is never given twice. All messages leased by
/// one receive share one token. It orders grants; it does not make a lease mutual exclusion. Never 0.
///
/// A forced recovery may forget grants. So raising the generation skips [`Token::GENERATION_STRIDE`] numbers, more than
/// a lost part of a log can hold. A forgotten token is never granted again.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// How far the numbers jump when the generation rises: about 10^12 grants.
    pub const GENERATION_STRIDE: u64 = 1 << 40;
}

macro_rules! show {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}
show!(Generation, TopicId, SubscriptionId, Token);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.number)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
