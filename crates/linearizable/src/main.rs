//! Says of histories of one register whether they are linearizable.
//!
//! Standard input has an action a line, in the order in which they happened, and an
//! empty line behind each history:
//!
//! ```text
//! CLIENT call|return write VALUE
//! CLIENT call|return read VALUE
//! CLIENT call|return cas OLD NEW yes|no|maybe
//! ```
//!
//! Values are numbers, 0 for a register that nobody wrote. What an operation
//! answered is only looked at in its return. `maybe` is for one whose answer nobody
//! knows; it and such a write return at the end of the history. The answer is a line
//! `yes` or `no` for each history. The search is
//! [`todc_utils::linearizability::WGLChecker`].

use std::io::{BufRead, Write};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

#[derive(Clone, Debug)]
enum Operation {
    Write(u64),
    Read(u64),
    Swap {
        old: u64,
        new: u64,
        swapped: Option<bool>,
    },
}

struct Register;

impl Specification for Register {
    type State = u64;
    type Operation = Operation;

    fn init() -> u64 {
        0
    }

    fn apply(operation: &Operation, state: &u64) -> (bool, u64) {
        match *operation {
            Operation::Write(value) => (true, value),
            Operation::Read(value) => (value == *state, *state),
            Operation::Swap { old, new, swapped } => {
                let swaps = old == *state;
                let after = if swaps { new } else { *state };
                (swapped.is_none_or(|said| said == swaps), after)
            }
        }
    }
}

fn parse(line: &str) -> Option<(usize, Action<Operation>)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (client, way, rest) = match words[..] {
        [client, way, ref rest @ ..] => (client.parse().ok()?, way, rest),
        _ => return None,
    };
    let operation = match *rest {
        ["write", value] => Operation::Write(value.parse().ok()?),
        ["read", value] => Operation::Read(value.parse().ok()?),
        ["cas", old, new, swapped] => Operation::Swap {
            old: old.parse().ok()?,
            new: new.parse().ok()?,
            swapped: match swapped {
                "yes" => Some(true),
                "no" => Some(false),
                "maybe" => None,
                _ => return None,
            },
        },
        _ => return None,
    };
    match way {
        "call" => Some((client, Action::Call(operation))),
        "return" => Some((client, Action::Response(operation))),
        _ => None,
    }
}

fn main() -> std::process::ExitCode {
    let mut actions = Vec::new();
    let mut out = std::io::stdout().lock();
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let Ok(line) = line else {
            eprintln!("line {}: cannot be read", number + 1);
            return 2.into();
        };
        if !line.is_empty() {
            let Some(action) = parse(&line) else {
                eprintln!("line {}: `{line}` is not an action", number + 1);
                return 2.into();
            };
            actions.push(action);
            continue;
        }
        let good = actions.is_empty()
            || WGLChecker::<Register>::is_linearizable(History::from_actions(std::mem::take(
                &mut actions,
            )));
        if writeln!(out, "{}", if good { "yes" } else { "no" }).is_err() {
            return 1.into();
        }
    }
    0.into()
}
