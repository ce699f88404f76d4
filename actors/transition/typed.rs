//! A table as a type: a state that is misspelt does not compile.

/// The states of one kind of thing. Best written by [`transitions!`](crate::transitions).
pub trait States: Copy + 'static {
    /// What kind of thing it is: `"message"`.
    const MACHINE: &'static str;
    /// Every state.
    const ALL: &'static [Self];

    /// The state as the database has it.
    fn name(self) -> &'static str;

    /// What it may become.
    fn next(self) -> &'static [Self];

    /// The state of that name.
    #[must_use]
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }
}

/// Declares the states of a kind of thing, with their names in the database and what each may become. A state
/// without a list is final.
///
/// ```
/// use selfheal_actors::{transition::Table, transitions};
///
/// transitions! {
///     /// Where a message stands.
///     pub enum Message("message") {
///         Ready = "READY" => [SpamReview, Promoted],
///         Promoted = "PROMOTED" => [Completed],
///         Completed = "COMPLETED",
///         SpamReview = "SPAM_REVIEW",
///     }
/// }
///
/// let table = Table::of::<Message>()?;
/// assert!(table.check(Message::Ready.as_ref(), Message::Promoted.as_ref()).is_ok());
/// let blocked = table.check("PROMOTED", "SPAM_REVIEW").expect_err("the bug");
/// assert_eq!(blocked.to_string(), "PROMOTED → SPAM_REVIEW is not allowed: PROMOTED may become COMPLETED");
/// # Ok::<(), selfheal_actors::transition::Invalid>(())
/// ```
///
/// ```compile_fail
/// selfheal_actors::transitions! {
///     enum Message("message") { Ready = "READY" => [Promoted] }
/// }
/// ```
#[macro_export]
macro_rules! transitions {
    (
        $(#[$about:meta])*
        $vis:vis enum $states:ident($machine:literal) {
            $($(#[$about_state:meta])* $state:ident = $name:literal $(=> [$($next:ident),* $(,)?])?),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $states {
            $(
                $(#[$about_state])*
                #[doc = concat!("`", $name, "`")]
                $state,
            )+
        }

        impl $crate::transition::States for $states {
            const MACHINE: &'static str = $machine;
            const ALL: &'static [Self] = &[$(Self::$state),+];

            fn name(self) -> &'static str {
                match self { $(Self::$state => $name),+ }
            }

            fn next(self) -> &'static [Self] {
                match self { $(Self::$state => &[$($(Self::$next),*)?]),+ }
            }
        }

        impl ::core::convert::AsRef<str> for $states {
            fn as_ref(&self) -> &str {
                $crate::transition::States::name(*self)
            }
        }

        impl ::core::fmt::Display for $states {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.pad($crate::transition::States::name(*self))
            }
        }
    };
}
