//! The packet program, instruction by instruction: it has some fifty, and a
//! compiler for it would be one more thing to install.
//!
//! For each packet from the virtual address:
//!
//! 1. other connections than the held ones pass;
//! 2. an end or abort that the gateway did not mean is dropped: the kernel makes
//!    one when a process dies;
//! 3. an acknowledgement of input that is not agreed is made one of what is, or
//!    dropped if the packet is nothing else. Its headers are left for the gateway,
//!    which sends them when more is agreed.

use super::{MAY_END, MAY_RESET, Slot};
use std::mem::offset_of;
use std::net::Ipv4Addr;

/// An instruction as `struct bpf_insn`.
pub type Instruction = [u8; 8];

/// Bytes of an Ethernet header and of an IP header without options.
const ETHERNET: i32 = 14;
const IP: i32 = 20;
const TCP: i32 = ETHERNET + IP;

/// `TCX_NEXT` and `TCX_DROP`.
const NEXT: i32 = -1;
const DROP: i32 = 2;

// Places on the stack.
const IP_HEADER: i16 = -24;
const TCP_HEADER: i16 = -48;
const KEY: i16 = -56;
const INDEX: i16 = -60;
const NUMBER: i16 = -64;

// Helper functions of the kernel.
const LOOK_UP: i32 = 1;
const STORE_BYTES: i32 = 9;
const REPLACE_CHECKSUM: i32 = 11;
const LOAD_BYTES: i32 = 26;

const BYTE: u8 = 0x10;
const SHORT: u8 = 0x08;
const WORD: u8 = 0x00;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    AfterEnd,
    AfterReset,
    Agreed,
    Rewrite,
    Pass,
    Drop,
}

#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Assembler {
    fn put(&mut self, op: u8, to: u8, from: u8, offset: i16, value: i32) {
        let [o0, o1] = offset.to_le_bytes();
        let [v0, v1, v2, v3] = value.to_le_bytes();
        self.code.push([op, from << 4 | to, o0, o1, v0, v1, v2, v3]);
    }

    fn copy(&mut self, to: u8, from: u8) {
        self.put(0xbf, to, from, 0, 0);
    }

    fn set(&mut self, to: u8, value: i32) {
        self.put(0xb7, to, 0, 0, value);
    }

    /// `to` points to a place on the stack.
    fn place(&mut self, to: u8, offset: i16) {
        self.copy(to, 10);
        self.put(0x07, to, 0, 0, offset.into());
    }

    fn load(&mut self, size: u8, to: u8, from: u8, offset: i16) {
        self.put(0x61 | size, to, from, offset, 0);
    }

    fn store(&mut self, size: u8, to: u8, offset: i16, from: u8) {
        self.put(0x63 | size, to, from, offset, 0);
    }

    fn and(&mut self, to: u8, mask: i32) {
        self.put(0x57, to, 0, 0, mask);
    }

    /// Turns the lower 32 bits around.
    fn swap(&mut self, to: u8) {
        self.put(0xdc, to, 0, 0, 32);
    }

    fn call(&mut self, helper: i32) {
        self.put(0x85, 0, 0, 0, helper);
    }

    /// A pointer to a map.
    fn map(&mut self, to: u8, fd: i32) {
        self.put(0x18, to, 1, 0, fd);
        self.put(0, 0, 0, 0, 0);
    }

    fn jump(&mut self, op: u8, register: u8, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.put(op, register, 0, 0, value);
    }

    fn equal(&mut self, register: u8, value: i32, label: Label) {
        self.jump(0x15, register, value, label);
    }

    fn unequal(&mut self, register: u8, value: i32, label: Label) {
        self.jump(0x55, register, value, label);
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.code.len()));
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let mut labels = self.labels.iter();
            // Every label is set in `assemble`.
            let Some(&(_, target)) = labels.find(|one| one.0 == label) else {
                continue;
            };
            let [low, high] = ((target - at - 1) as i16).to_le_bytes();
            self.code[at][2] = low;
            self.code[at][3] = high;
        }
        self.code
    }
}

/// The program for an address, with the maps from flows to slots.
pub fn assemble(address: Ipv4Addr, flows: i32, slots: i32) -> Vec<Instruction> {
    let mut a = Assembler::default();
    let agreed = offset_of!(Slot, agreed) as i16;
    let may = offset_of!(Slot, may) as i16;
    let owed = offset_of!(Slot, owed) as i16;
    let version = offset_of!(Slot, version) as i16;
    let headers = offset_of!(Slot, headers) as i32;
    a.copy(6, 1);
    // __sk_buff.protocol
    a.load(WORD, 2, 6, 16);
    a.unequal(2, u16::to_be(0x0800).into(), Label::Pass);
    header(&mut a, ETHERNET, IP_HEADER);
    a.load(BYTE, 1, 10, IP_HEADER);
    a.unequal(1, 0x45, Label::Pass);
    a.load(BYTE, 1, 10, IP_HEADER + 9);
    a.unequal(1, libc::IPPROTO_TCP, Label::Pass);
    a.load(WORD, 1, 10, IP_HEADER + 12);
    let source = i32::from_ne_bytes(address.octets());
    // 32 bits, as the value is extended by its sign otherwise.
    a.jump(0x56, 1, source, Label::Pass);
    header(&mut a, TCP, TCP_HEADER);
    // The flow: the client's address and port, and the port here.
    a.load(WORD, 1, 10, IP_HEADER + 16);
    a.store(WORD, 10, KEY, 1);
    a.load(SHORT, 1, 10, TCP_HEADER + 2);
    a.store(SHORT, 10, KEY + 4, 1);
    a.load(SHORT, 1, 10, TCP_HEADER);
    a.store(SHORT, 10, KEY + 6, 1);
    a.map(1, flows);
    a.place(2, KEY);
    a.call(LOOK_UP);
    a.equal(0, 0, Label::Pass);
    a.load(WORD, 1, 0, 0);
    a.store(WORD, 10, INDEX, 1);
    a.map(1, slots);
    a.place(2, INDEX);
    a.call(LOOK_UP);
    a.equal(0, 0, Label::Pass);
    a.copy(7, 0);
    a.load(BYTE, 8, 10, TCP_HEADER + 13);
    for (flag, allowed, after) in [
        (1, MAY_END, Label::AfterEnd),
        (4, MAY_RESET, Label::AfterReset),
    ] {
        a.copy(1, 8);
        a.and(1, flag);
        a.equal(1, 0, after);
        a.load(WORD, 2, 7, may);
        a.and(2, allowed as i32);
        a.equal(2, 0, Label::Drop);
        a.label(after);
    }
    a.load(WORD, 9, 10, TCP_HEADER + 8);
    a.copy(1, 9);
    a.swap(1);
    a.load(WORD, 2, 7, agreed);
    // Numbers wrap: the difference, of 32 bits and with a sign, is what counts.
    a.put(0x1c, 1, 2, 0, 0);
    a.jump(0xd6, 1, 0, Label::Agreed);
    a.copy(1, 2);
    a.swap(1);
    a.store(WORD, 10, NUMBER, 1);
    // A version that is odd is being written.
    count(&mut a, version);
    // The length of the TCP header, four times the upper half of its byte.
    a.load(BYTE, 8, 10, TCP_HEADER + 12);
    a.put(0x77, 8, 0, 0, 2);
    a.and(8, 0x3c);
    // Less than 20 cannot be.
    a.jump(0xa5, 8, 20, Label::Drop);
    a.put(0x07, 8, 0, 0, TCP);
    a.copy(1, 6);
    a.set(2, 0);
    a.copy(3, 7);
    a.put(0x07, 3, 0, 0, headers);
    a.copy(4, 8);
    a.call(LOAD_BYTES);
    a.unequal(0, 0, Label::Drop);
    // __sk_buff.len
    a.load(WORD, 1, 6, 0);
    a.store(WORD, 7, owed, 1);
    count(&mut a, version);
    a.load(WORD, 1, 6, 0);
    a.jumps.push((a.code.len(), Label::Rewrite));
    // More than the headers.
    a.put(0x2d, 1, 8, 0, 0);
    a.equal(0, 0, Label::Drop);
    a.label(Label::Rewrite);
    a.load(WORD, 4, 10, NUMBER);
    a.copy(1, 6);
    a.set(2, TCP + 16);
    a.copy(3, 9);
    a.set(5, 4);
    a.call(REPLACE_CHECKSUM);
    a.unequal(0, 0, Label::Drop);
    a.copy(1, 6);
    a.set(2, TCP + 8);
    a.place(3, NUMBER);
    a.set(4, 4);
    a.set(5, 0);
    a.call(STORE_BYTES);
    a.unequal(0, 0, Label::Drop);
    a.equal(0, 0, Label::Pass);
    a.label(Label::Agreed);
    a.set(3, 0);
    a.store(WORD, 7, owed, 3);
    a.label(Label::Pass);
    a.set(0, NEXT);
    a.put(0x95, 0, 0, 0, 0);
    a.label(Label::Drop);
    a.set(0, DROP);
    a.put(0x95, 0, 0, 0, 0);
    a.finish()
}

/// Adds one to a word of the slot.
fn count(a: &mut Assembler, word: i16) {
    a.load(WORD, 1, 7, word);
    a.put(0x07, 1, 0, 0, 1);
    a.store(WORD, 7, word, 1);
}

/// Copies 20 bytes of the packet to the stack.
fn header(a: &mut Assembler, from: i32, to: i16) {
    a.copy(1, 6);
    a.set(2, from);
    a.place(3, to);
    a.set(4, 20);
    a.call(LOAD_BYTES);
    a.unequal(0, 0, Label::Pass);
}
