//! A token, and how one is compared.

use std::fmt;

use subtle::{Choice, ConstantTimeEq as _};

/// A shared secret of the admin surface. It is never shown.
#[derive(Clone)]
pub struct Token([u8; Token::LONGEST], u32);

/// A token that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is empty: everybody would know it.
    Empty,
    /// It is longer than [`Token::LONGEST`].
    TooLong,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a token must not be empty"),
            Self::TooLong => write!(f, "a token must not be longer than {} bytes", Token::LONGEST),
        }
    }
}

impl std::error::Error for Unfit {}

impl Token {
    /// The greatest length of a token, in bytes.
    pub const LONGEST: usize = 256;

    /// A token of this text.
    ///
    /// # Errors
    /// [`Unfit`], if the text is empty or too long.
    pub fn new(text: &str) -> Result<Self, Unfit> {
        if text.is_empty() {
            return Err(Unfit::Empty);
        }
        padded(text).map(|(bytes, length)| Self(bytes, length)).ok_or(Unfit::TooLong)
    }

    /// Whether `text` is this token, in a time that depends on neither's content.
    ///
    /// All [`Token::LONGEST`] bytes are compared, whatever the lengths. A text that is too long to be a token is
    /// seen as such at once: that tells nothing about the token.
    pub(crate) fn is(&self, text: &str) -> Choice {
        match padded(text) {
            Some((bytes, length)) => self.0.ct_eq(&bytes) & self.1.ct_eq(&length),
            None => Choice::from(0),
        }
    }
}

fn padded(text: &str) -> Option<([u8; Token::LONGEST], u32)> {
    let mut bytes = [0; Token::LONGEST];
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some((bytes, u32::try_from(text.len()).ok()?))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_text_is_the_token() {
        let token = Token::new("s3cret").expect("it is fit");
        assert!(bool::from(token.is("s3cret")));
        for other in ["", "s3cre", "s3cret ", "s3cret\0", "S3cret", &"s".repeat(9_999)] {
            assert!(!bool::from(token.is(other)), "{other:?}");
        }
    }

    #[test]
    fn a_token_is_fit_or_refused_and_never_shown() {
        assert_eq!(Token::new("").err(), Some(Unfit::Empty));
        assert_eq!(Token::new(&"x".repeat(257)).err(), Some(Unfit::TooLong));
        assert_eq!(format!("{:?}", Token::new(&"x".repeat(256))), "Ok(***)");
    }
}
