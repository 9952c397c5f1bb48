//! Why an engine cannot be made, started or kept running.

use std::fmt;

/// One line for the operator that names the place and the mend.
#[derive(Clone, Debug)]
pub struct EngineError(String);

impl EngineError {
    /// An error with this line.
    pub fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}
