//! An acknowledgement that was kept back, and is sent when it may be.

use super::HEADERS;

const IP: usize = 14;
const TCP: usize = IP + 20;
const LENGTH: usize = IP + 2;
const IP_CHECKSUM: usize = IP + 10;
const SEQUENCE: usize = TCP + 4;
const ACKNOWLEDGED: usize = TCP + 8;
const OFFSET: usize = TCP + 12;
const FLAGS: usize = TCP + 13;
const TCP_CHECKSUM: usize = TCP + 16;
/// Nothing but an acknowledgement.
const ACK: u8 = 0x10;

/// The headers of the packet.
pub struct Kept {
    headers: [u8; HEADERS],
    /// The packet's length.
    whole: usize,
}

impl Kept {
    /// The headers of a packet of `whole` bytes, and whatever follows them.
    pub fn new(headers: [u8; HEADERS], whole: usize) -> Self {
        Self { headers, whole }
    }

    /// The packet without its content, with an acknowledgement of no more than
    /// `agreed`. `None` when it cannot be one.
    pub fn acknowledging(&mut self, agreed: u32) -> Option<&[u8]> {
        let len = TCP + usize::from(self.headers[OFFSET] >> 4) * 4;
        if !(TCP + 20..=HEADERS).contains(&len) || len > self.whole {
            return None;
        }
        let content = (self.whole - len) as u32;
        self.put(SEQUENCE, self.number(SEQUENCE).wrapping_add(content));
        let wanted = self.number(ACKNOWLEDGED);
        // Numbers wrap.
        if (wanted.wrapping_sub(agreed) as i32) > 0 {
            self.put(ACKNOWLEDGED, agreed);
        }
        let packet = &mut self.headers[..len];
        packet[FLAGS] = ACK;
        packet[LENGTH..LENGTH + 2].copy_from_slice(&((len - IP) as u16).to_be_bytes());
        packet[IP_CHECKSUM..IP_CHECKSUM + 2].fill(0);
        let sum = checksum(add(0, &packet[IP..TCP]));
        packet[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&sum);
        packet[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        // The addresses, the protocol and the length count as well.
        let pseudo = add(6 + (len - TCP) as u32, &packet[IP + 12..TCP]);
        let sum = checksum(add(pseudo, &packet[TCP..]));
        packet[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum);
        Some(packet)
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = &self.headers[at..at + 4];
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn put(&mut self, at: usize, number: u32) {
        self.headers[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }
}

fn add(sum: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    words.fold(sum, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    })
}

fn checksum(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IP and TCP of a packet with 100 bytes of content.
    fn packet() -> Kept {
        let mut headers = [0; HEADERS];
        headers[IP] = 0x45;
        headers[IP + 8] = 64;
        headers[IP + 9] = 6;
        headers[IP + 12..IP + 20].copy_from_slice(&[192, 0, 2, 10, 192, 0, 2, 1]);
        headers[TCP..TCP + 4].copy_from_slice(&[0x18, 0xeb, 0xc3, 0x50]);
        headers[SEQUENCE..SEQUENCE + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        headers[ACKNOWLEDGED..ACKNOWLEDGED + 4].copy_from_slice(&[0, 0, 0, 10]);
        headers[OFFSET] = 8 << 4;
        headers[FLAGS] = 0x18;
        Kept::new(headers, 14 + 20 + 32 + 100)
    }

    #[test]
    fn an_acknowledgement_is_made_of_what_was_kept() {
        let mut kept = packet();
        let sent = kept.acknowledging(u32::MAX).unwrap();
        assert_eq!(sent.len(), 14 + 20 + 32);
        assert_eq!(sent[LENGTH..LENGTH + 2], [0, 52]);
        assert_eq!(sent[SEQUENCE..SEQUENCE + 4], [0, 0, 0, 99]);
        assert_eq!(sent[ACKNOWLEDGED..ACKNOWLEDGED + 4], [0xff; 4]);
        assert_eq!(sent[FLAGS], ACK);
        // With the right checksums both sums are zero.
        assert_eq!(checksum(add(0, &sent[IP..TCP])), [0, 0]);
        let whole = add(add(6 + 32, &sent[IP + 12..TCP]), &sent[TCP..]);
        assert_eq!(checksum(whole), [0, 0]);
        assert_eq!(packet().acknowledging(7).unwrap()[ACKNOWLEDGED + 3], 7);
        assert_eq!(packet().acknowledging(20).unwrap()[ACKNOWLEDGED + 3], 10);
    }

    #[test]
    fn what_cannot_be_a_packet_is_none() {
        let mut short = packet();
        short.headers[OFFSET] = 4 << 4;
        assert!(short.acknowledging(1).is_none());
        let mut long = packet();
        long.whole = 40;
        assert!(long.acknowledging(1).is_none());
    }
}
