//! What an operator can ask of a circuit.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{circuit::Circuit, clock::Tick, signal::Name};

/// What a circuit is to do. The first four *pin* it: it stays so until [`Order::Auto`] or until the time given is
/// over, and neither the rule nor a timer moves it meanwhile. The last three move it once; then the rule goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Refuse all calls.
    ForceOpen,
    /// Let all calls pass, and count them.
    ForceClosed,
    /// Let all calls pass, and do not even count.
    Disabled,
    /// Let all calls pass, count them, and tell once that the circuit would have opened.
    MetricsOnly,
    /// Do as the rule says again, from where it was.
    Auto,
    /// Open now; for as long as given, else for as long as the policy says.
    Trip,
    /// Let calls try it now, though its time is not over.
    Probe,
    /// Close, and forget what happened.
    Reset,
}

crate::level::closed_set!(Order {
    ForceOpen = "force_open",
    ForceClosed = "force_closed",
    Disabled = "disabled",
    MetricsOnly = "metrics_only",
    Auto = "auto",
    Trip = "trip",
    Probe = "probe",
    Reset = "reset",
});

impl Order {
    /// Whether what it asks for stays until it is lifted.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        self.pins().is_some()
    }

    /// What a circuit shows that is pinned by this; `None` if it pins nothing.
    pub(super) const fn pins(self) -> Option<Circuit> {
        match self {
            Self::ForceOpen => Some(Circuit::ForcedOpen),
            Self::ForceClosed => Some(Circuit::ForcedClosed),
            Self::Disabled => Some(Circuit::Disabled),
            Self::MetricsOnly => Some(Circuit::MetricsOnly),
            Self::Auto | Self::Trip | Self::Probe | Self::Reset => None,
        }
    }
}

/// An order, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is to be done.
    pub order: Order,
    /// For how long: a pin's life, or the length of the opening that [`Order::Trip`] begins. Others end at once
    /// and do not look at it.
    pub lasts: Option<Duration>,
    /// Who asks for it.
    pub by: Name,
    /// Why.
    pub reason: Name,
}

impl Command {
    /// `order`, with no end, by `by` and because of `reason`.
    #[must_use]
    pub fn new(order: Order, by: impl Into<Name>, reason: impl Into<Name>) -> Self {
        Self { order, lasts: None, by: by.into(), reason: reason.into() }
    }

    /// The same, for `lasts`.
    #[must_use]
    pub const fn lasting(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self
    }
}

/// What holds a circuit where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// What it shows.
    pub shows: Circuit,
    /// Until when; `None` is for good.
    pub until: Option<Tick>,
    /// Who pinned it.
    pub by: Name,
    /// Why.
    pub reason: Name,
}

/// An order that makes no sense as things are; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illegal {
    /// It is pinned.
    Pinned(Circuit),
    /// A closed circuit has nothing to try.
    ProbeOfClosed,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned(shows) => write!(f, "the circuit is {shows}: release it first, with auto"),
            Self::ProbeOfClosed => f.write_str("the circuit is closed: there is nothing to probe"),
        }
    }
}

impl std::error::Error for Illegal {}
