//! What was checked, and the first thing that was not as expected.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display, Formatter};

use hivehub_internal_sdk::HiveHubCloudError as Error;

/// The calls of the SDK; a check belongs to one of them by its number, counted from 1.
pub const CALLS: [&str; 23] = [
    "access_keys.generate",
    "access_keys.list",
    "access_keys.get",
    "access_keys.revoke",
    "vectorizer.get_user_collections",
    "vectorizer.create_collection",
    "vectorizer.validate_collection",
    "vectorizer.update_usage",
    "vectorizer.check_quota",
    "nexus.get_user_database",
    "nexus.check_quota",
    "nexus.consume_credits",
    "nexus.update_usage",
    "synap.get_user_resources",
    "synap.validate_resource",
    "synap.create_resource",
    "synap.update_usage",
    "synap.check_quota",
    "lesstokens.get_user_tokens",
    "lesstokens.validate_tokens",
    "lesstokens.consume_tokens",
    "lesstokens.check_limit",
    "lesstokens.check_quota",
];

/// A check that failed. Nothing is checked after it.
pub struct Failure {
    check: String,
    expected: String,
    came: String,
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { check, expected, came } = self;
        write!(f, "FAILED {check}\n  expected: {expected}\n  came:     {came}")
    }
}

/// Either a value that came, or the check that failed.
pub type Checked<T = ()> = Result<T, Failure>;

/// Counts checks, and the calls of which a successful reply was asserted about.
#[derive(Default)]
pub struct Report {
    checks: usize,
    valued: BTreeSet<usize>,
}

impl Report {
    /// The value that a call must give for the program to go on.
    pub fn value<T>(&self, call: usize, what: &str, came: Result<T, Error>) -> Checked<T> {
        came.map_err(|error| failure(call, what, "a reply", format!("{error:?}")))
    }

    /// What a call gave is this.
    pub fn equal<T: PartialEq + Debug>(&mut self, call: usize, what: &str, came: T, expected: T) -> Checked {
        if came != expected {
            return Err(failure(call, what, format!("{expected:?}"), format!("{came:?}")));
        }
        self.valued.insert(call);
        self.passed(call, what);
        Ok(())
    }

    /// A call that gives no value was taken.
    pub fn taken(&mut self, call: usize, what: &str, came: Result<(), Error>) -> Checked {
        self.value(call, what, came)?;
        self.equal(call, what, (), ())
    }

    /// A call was refused with this error and these words.
    pub fn refused<T: Debug>(&mut self, call: usize, what: &str, came: Result<T, Error>, expected: Error) -> Checked {
        // The SDK's errors cannot be compared; their variant and text can be written.
        let (came, expected) = (said(&came), format!("{expected:?}"));
        if came != expected {
            return Err(failure(call, what, expected, came));
        }
        self.passed(call, what);
        Ok(())
    }

    /// A call was refused with this variant; its words are not settled anywhere.
    pub fn refused_as<T: Debug>(
        &mut self,
        call: usize,
        what: &str,
        came: Result<T, Error>,
        variant: fn(String) -> Error,
    ) -> Checked {
        let wanted = variant(String::new());
        match &came {
            Err(error) if std::mem::discriminant(error) == std::mem::discriminant(&wanted) => {
                self.passed(call, what);
                Ok(())
            }
            _ => Err(failure(call, what, format!("{wanted:?}"), said(&came))),
        }
    }

    /// The last line, and whether a reply of each call was asserted about.
    pub fn summary(&self) -> (String, bool) {
        let (valued, calls) = (self.valued.len(), CALLS.len());
        let line = format!("{valued} of {calls} calls, {} checks", self.checks);
        (line, valued == calls)
    }

    fn passed(&mut self, call: usize, what: &str) {
        self.checks += 1;
        println!("ok {}", title(call, what));
    }
}

fn title(call: usize, what: &str) -> String {
    format!("{call:02} {}: {what}", CALLS[call - 1])
}

fn said<T: Debug>(came: &Result<T, Error>) -> String {
    match came {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{error:?}"),
    }
}

fn failure(call: usize, what: &str, expected: impl Into<String>, came: impl Into<String>) -> Failure {
    Failure { check: title(call, what), expected: expected.into(), came: came.into() }
}
