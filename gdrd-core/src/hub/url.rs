//! Web addresses that may hold a password.

use std::fmt;

/// A web address. What stands before an `@` in it, a user and a password, is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The address that a text is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The address with everything in it, for a request.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }

    /// User and password, as they are written.
    fn user(&self) -> Option<&str> {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        rest.rsplit_once('@').map(|(user, _)| user)
    }

    /// A message of somebody else, without user and password.
    pub(super) fn hidden_in(&self, message: String) -> String {
        match self.user() {
            Some(user) if !user.is_empty() => message.replace(user, "***"),
            _ => message,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hidden_in(self.0.clone()))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_not_shown() {
        for (text, shown) in [
            ("http://ann:pa%20ss@proxy:8/x", "http://***@proxy:8/x"),
            ("ann:p/a@s?s@proxy", "***@proxy"),
            ("https://token@h/x", "https://***@h/x"),
            ("https://h/x", "https://h/x"),
        ] {
            assert_eq!(Url::new(text).to_string(), shown);
            assert_eq!(format!("{:?}", Url::new(text)), format!("{shown:?}"));
        }
        let hidden = Url::new("http://ann:secret@h").hidden_in("bad uri: http://ann:secret@h/a".into());
        assert_eq!(hidden, "bad uri: http://***@h/a");
    }
}
