//! What gateways and leaders say to each other, inside gateway frames.
//!
//! A frame whose first byte is not 0 is a batch of events exactly as it goes
//! into the log (its first byte is the gateway's id), so that it needs no
//! wrapping. Others begin with 0 and a kind.

/// A message of a gateway to the leader, or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGateway {
    /// To the leader: an encoded batch.
    Batch(Vec<u8>),
    /// To the leader: the gateway that speaks is at this incarnation; lower
    /// ones are over. 0: it has none yet since its process started.
    Started(u32),
    /// From the leader: who has applied the log up to here has caught up.
    Target(u64),
    /// To the leader: whether clients are connected here, who wait for what
    /// their server does by itself and on behalf of others.
    Clients(bool),
    /// To the leader: the wall clock of the one that speaks, nanoseconds since the Unix epoch.
    Clock(u64),
    /// To the leader: what the owner of this replica asks, by a number of its
    /// own, as JSON.
    Ask(u64, String),
    /// From the leader: its answer, as JSON.
    Answer(u64, String),
}

const STARTED: u8 = 1;
const TARGET: u8 = 2;
const CLIENTS: u8 = 3;
const CLOCK: u8 = 4;
const ASK: u8 = 5;
const ANSWER: u8 = 6;
/// Longest question or answer.
const LONGEST: usize = 256 << 10;

impl ToGateway {
    /// Reads a frame's payload.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0, STARTED, rest @ ..] => {
                Some(Self::Started(u32::from_le_bytes(rest.try_into().ok()?)))
            }
            [0, TARGET, rest @ ..] => Some(Self::Target(u64::from_le_bytes(rest.try_into().ok()?))),
            [0, CLIENTS, any @ (0 | 1)] => Some(Self::Clients(*any == 1)),
            [0, CLOCK, rest @ ..] => Some(Self::Clock(u64::from_le_bytes(rest.try_into().ok()?))),
            [0, kind @ (ASK | ANSWER), rest @ ..] if rest.len() <= LONGEST => {
                let (number, text) = rest.split_first_chunk::<8>()?;
                let text = String::from_utf8(text.to_vec()).ok()?;
                let number = u64::from_le_bytes(*number);
                Some(match *kind {
                    ASK => Self::Ask(number, text),
                    _ => Self::Answer(number, text),
                })
            }
            [0, ..] | [] => None,
            batch => Some(Self::Batch(batch.to_vec())),
        }
    }

    /// The payload of a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Batch(bytes) => bytes.clone(),
            Self::Started(incarnation) => [&[0, STARTED][..], &incarnation.to_le_bytes()].concat(),
            Self::Ask(number, text) => {
                [&[0, ASK][..], &number.to_le_bytes(), text.as_bytes()].concat()
            }
            Self::Answer(number, text) => {
                [&[0, ANSWER][..], &number.to_le_bytes(), text.as_bytes()].concat()
            }
            Self::Clients(any) => vec![0, CLIENTS, u8::from(*any)],
            Self::Clock(wall) => [&[0, CLOCK][..], &wall.to_le_bytes()].concat(),
            Self::Target(index) => [&[0, TARGET][..], &index.to_le_bytes()].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_round_trip() {
        for message in [
            ToGateway::Batch(vec![3, 0, 1]),
            ToGateway::Started(7),
            ToGateway::Target(1 << 40),
            ToGateway::Clients(true),
            ToGateway::Clients(false),
            ToGateway::Clock(1 << 60),
            ToGateway::Ask(9, "{}".into()),
            ToGateway::Answer(9, String::new()),
        ] {
            assert_eq!(ToGateway::decode(&message.encode()), Some(message));
        }
        assert_eq!(ToGateway::decode(&[]), None);
        assert_eq!(ToGateway::decode(&[0, 1, 2]), None);
        assert_eq!(ToGateway::decode(&[0, 3, 2]), None);
        assert_eq!(ToGateway::decode(&[0, 5, 1, 2, 3]), None);
    }
}
