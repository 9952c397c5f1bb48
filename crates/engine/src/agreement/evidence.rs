//! What a program did in an epoch that is in dispute, and where two of them part.

use crane_channel::epoch::ConnId;
use crane_channel::recent::{Operation, Sent};
use serde_json::{Value, json};

/// Operations before and after the first difference that are told.
const AROUND: u64 = 1000;
const SENT: usize = 28;

/// What one replica's program did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Logical clock of the first operation.
    pub first: u64,
    /// The operations from there on, one for each clock.
    pub operations: Vec<Operation>,
    /// Its outputs in order.
    pub outputs: Vec<Sent>,
    /// None of the outputs asked for was forgotten.
    pub whole: bool,
}

/// In what two sides part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Another operation, or another thread.
    Operation,
    /// The same operation sent other bytes, or ended a connection.
    Output(ConnId),
    /// One side has no more operations.
    End,
}

/// The first difference of two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its logical clock.
    pub clock: u64,
    /// In what they differ.
    pub what: What,
    /// The first side's operation then.
    pub ours: Option<Operation>,
    /// The other's.
    pub theirs: Option<Operation>,
}

impl Side {
    /// The operation at a logical clock.
    pub fn at(&self, clock: u64) -> Option<Operation> {
        let place = usize::try_from(clock.checked_sub(self.first)?).ok()?;
        self.operations.get(place).copied()
    }

    fn end(&self) -> u64 {
        self.first.saturating_add(self.operations.len() as u64)
    }

    /// Finds where `theirs` parts from this side, from the logical clock `from`
    /// on, up to which they are the same. `None` when what is left of either
    /// begins later, or shows no difference.
    pub fn first_difference(&self, theirs: &Self, from: u64) -> Option<Finding> {
        let operation = self.other_operation(theirs, from);
        let output = self.other_output(theirs);
        let at = |clock, what| Finding {
            clock,
            what,
            ours: self.at(clock),
            theirs: theirs.at(clock),
        };
        match (operation, output) {
            (Some(clock), Some((sent, conn))) if sent <= clock => {
                Some(at(sent, What::Output(conn)))
            }
            (None, Some((sent, conn))) => Some(at(sent, What::Output(conn))),
            (Some(clock), _) => {
                let both = self.at(clock).is_some() && theirs.at(clock).is_some();
                Some(at(clock, if both { What::Operation } else { What::End }))
            }
            (None, None) => None,
        }
    }

    /// The clock of the first other operation.
    fn other_operation(&self, theirs: &Self, from: u64) -> Option<u64> {
        if self.first > from || theirs.first > from {
            return None;
        }
        let end = self.end().max(theirs.end());
        (from..end).find(|&clock| match (self.at(clock), theirs.at(clock)) {
            (Some(one), Some(other)) => !one.is_like(other),
            _ => true,
        })
    }

    /// The clock and the connection of the first other output.
    fn other_output(&self, theirs: &Self) -> Option<(u64, ConnId)> {
        if !self.whole || !theirs.whole {
            return None;
        }
        let pairs = self.outputs.iter().zip(&theirs.outputs);
        let other = pairs
            .into_iter()
            .find(|(one, other)| one != other)
            .map(
                |(one, other)| {
                    if one.clock <= other.clock { one } else { other }
                },
            );
        let longer = if self.outputs.len() > theirs.outputs.len() {
            self.outputs.get(theirs.outputs.len())
        } else {
            theirs.outputs.get(self.outputs.len())
        };
        let found = other.or(longer)?;
        Some((found.clock, ConnId(found.conn)))
    }

    /// The operations around a logical clock and all outputs, for people.
    pub fn told(&self, clock: u64) -> Value {
        let from = clock.saturating_sub(AROUND).max(self.first);
        let to = clock.saturating_add(AROUND).min(self.end());
        let operations: Vec<Value> = (from..to)
            .filter_map(|clock| {
                let one = self.at(clock)?;
                Some(json!([clock, one.slot(), one.code(), one.object()]))
            })
            .collect();
        let outputs = self.outputs.iter().take(AROUND as usize);
        let outputs: Vec<Value> = outputs
            .map(|one| {
                let hash = crate::status::hex(one.hash);
                json!([
                    one.clock,
                    connection(ConnId(one.conn)),
                    one.what,
                    one.len,
                    hash
                ])
            })
            .collect();
        json!({ "operations": operations, "outputs": outputs })
    }

    /// Appends what [`decode`](Self::decode) reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&(self.operations.len() as u32).to_le_bytes());
        for one in &self.operations {
            out.extend_from_slice(&one.0.to_le_bytes());
        }
        out.push(u8::from(self.whole));
        out.extend_from_slice(&(self.outputs.len() as u32).to_le_bytes());
        for one in &self.outputs {
            for word in [one.clock, one.conn, one.hash] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.push(one.what as u8);
            out.extend_from_slice(&one.len.to_le_bytes()[..3]);
        }
    }

    /// Reads a side; `None` when it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let len = (u32::from_le_bytes(*count) as usize).checked_mul(8)?;
        let (operations, rest) = rest.split_at_checked(len)?;
        let (&whole, rest) = rest.split_first()?;
        let (count, outputs) = rest.split_first_chunk::<4>()?;
        let (outputs, more) = outputs.as_chunks::<SENT>();
        if whole > 1 || !more.is_empty() || outputs.len() != u32::from_le_bytes(*count) as usize {
            return None;
        }
        let word = |bytes: &[u8; SENT], at: usize| {
            let (words, _) = bytes.as_chunks::<8>();
            u64::from_le_bytes(words[at])
        };
        let (operations, _) = operations.as_chunks::<8>();
        Some(Self {
            first: u64::from_le_bytes(*first),
            operations: operations
                .iter()
                .map(|one| Operation(u64::from_le_bytes(*one)))
                .collect(),
            outputs: outputs
                .iter()
                .map(|one| Sent {
                    clock: word(one, 0),
                    conn: word(one, 1),
                    hash: word(one, 2),
                    what: one[24].into(),
                    len: u32::from_le_bytes([one[25], one[26], one[27], 0]),
                })
                .collect(),
            whole: whole == 1,
        })
    }
}

impl Finding {
    /// For the owner.
    pub fn told(&self) -> Value {
        let side = |one: Option<Operation>| {
            one.map(|o| json!({ "thread": o.slot(), "operation": o.code(), "object": o.object() }))
        };
        let (what, conn) = match self.what {
            What::Operation => ("operation", None),
            What::Output(conn) => ("output", Some(conn)),
            What::End => ("end", None),
        };
        json!({
            "clock": self.clock,
            "what": what,
            "connection": conn.map(connection),
            "ours": side(self.ours),
            "theirs": side(self.theirs),
        })
    }
}

/// A connection for people: its number among those of a replica's gateway.
fn connection(conn: ConnId) -> String {
    let number = conn.0 & u64::from(u32::MAX);
    match (conn.gateway(), conn.incarnation()) {
        (0, 0) => format!("datagram socket {number}"),
        (gateway, incarnation) => format!("{gateway}.{incarnation}.{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(codes: &[u32]) -> Side {
        Side {
            first: 10,
            operations: codes.iter().map(|&c| Operation::new(c, 1, 0)).collect(),
            outputs: Vec::new(),
            whole: true,
        }
    }

    fn sent(clock: u64, hash: u64) -> Sent {
        Sent {
            clock,
            conn: ConnId::new(1, 2, 3).0,
            hash,
            what: 1,
            len: 4,
        }
    }

    #[test]
    fn the_first_other_operation_is_found() {
        let (ours, theirs) = (side(&[1, 2, 3, 4]), side(&[1, 2, 9, 9]));
        let found = ours.first_difference(&theirs, 10).unwrap();
        assert_eq!((found.clock, found.what), (12, What::Operation));
        assert_eq!(found.theirs.unwrap().code(), 9);
        let found = ours.first_difference(&side(&[1, 2]), 10).unwrap();
        assert_eq!((found.clock, found.what), (12, What::End));
        assert_eq!(ours.first_difference(&ours, 10), None);
    }

    #[test]
    fn an_other_answer_comes_before_an_other_operation() {
        let (mut ours, mut theirs) = (side(&[1, 2, 3, 4]), side(&[1, 2, 3, 9]));
        ours.outputs = vec![sent(10, 5), sent(11, 6)];
        theirs.outputs = vec![sent(10, 5), sent(11, 7)];
        let found = ours.first_difference(&theirs, 10).unwrap();
        let conn = ConnId::new(1, 2, 3);
        assert_eq!((found.clock, found.what), (11, What::Output(conn)));
        assert_eq!(found.told()["connection"], "1.2.3");
        // One that one side did not send at all.
        theirs.outputs.pop();
        let found = ours.first_difference(&theirs, 10).unwrap();
        assert_eq!((found.clock, found.what), (11, What::Output(conn)));
        // Forgotten ones are no difference.
        theirs.whole = false;
        let found = ours.first_difference(&theirs, 10).unwrap();
        assert_eq!((found.clock, found.what), (13, What::Operation));
    }

    #[test]
    fn what_was_overwritten_is_no_difference() {
        let (ours, mut theirs) = (side(&[1, 2, 3, 4]), side(&[3, 9]));
        theirs.first = 12;
        assert_eq!(ours.first_difference(&theirs, 10), None);
        assert_eq!(ours.first_difference(&theirs, 12).unwrap().clock, 13);
    }
}
