//! From a place inside this library back to the program's call of it.
//!
//! Follows the library's own unwind table (`.eh_frame`, see the LSB core
//! specification and DWARF 5, 6.4), so that it needs no frame pointers and
//! finds the call exactly or not at all. Used for traces only.

use core::ptr::read_unaligned;

/// A call of the program into this library.
pub(crate) struct CallSite {
    /// Where the program goes on; 0: not known.
    pub(crate) address: u64,
    /// Its stack pointer there.
    pub(crate) stack: u64,
}

/// Calls within this library that a search follows at the most.
const DEPTH: u32 = 16;

/// Register numbers of the x86-64 ABI.
const RBP: u64 = 6;
const RSP: u64 = 7;

unsafe extern "C" {
    /// The library's ELF header, by the linker.
    #[link_name = "__ehdr_start"]
    static IMAGE: u8;
}

fn image() -> usize {
    &raw const IMAGE as usize
}

/// Whether `address` lies in this library's code.
pub(crate) fn is_ours(address: u64) -> bool {
    Table::covering(address).is_some()
}

/// Finds the program's call, from the place on the stack of a return address
/// into this library and the frame register there.
///
/// # Safety
/// Both are as they were at a call by this library's own code, in frames that
/// are still active.
pub(crate) unsafe fn of_the_program(at: *const u64, base: u64) -> CallSite {
    // SAFETY: the caller's.
    let mut address = unsafe { *at };
    let mut stack = at as u64 + 8;
    let mut base = base;
    for _ in 0..DEPTH {
        let Some(table) = Table::covering(address) else {
            return CallSite { address, stack };
        };
        // A return address may be the first of the next range.
        let Some(rules) = table.rules(address - 1) else {
            break;
        };
        let frame = match rules.register {
            RSP => stack,
            RBP => base,
            _ => break,
        };
        let frame = frame.wrapping_add_signed(rules.offset);
        // SAFETY: the unwind table describes our own active frames.
        unsafe {
            if let Some(saved) = rules.base {
                base = *(frame.wrapping_add_signed(saved) as *const u64);
            }
            address = *((frame - 8) as *const u64);
        }
        stack = frame;
    }
    CallSite {
        address: 0,
        stack: 0,
    }
}

/// The unwind table of this library.
struct Table {
    header: usize,
}

impl Table {
    /// The table, if `address` is within this library's code.
    fn covering(address: u64) -> Option<Self> {
        let offset = (address as usize).wrapping_sub(image());
        // SAFETY: the linker put the ELF header and its program headers at the
        // beginning of this library's first segment, which is mapped.
        let header = unsafe { &*(image() as *const libc::Elf64_Ehdr) };
        let first = image() + header.e_phoff as usize;
        let segments = (0..usize::from(header.e_phnum)).map(|nth| {
            // SAFETY: as above.
            unsafe { &*(first as *const libc::Elf64_Phdr).add(nth) }
        });
        let mut inside = false;
        let mut table = None;
        for segment in segments {
            let range = segment.p_vaddr as usize..(segment.p_vaddr + segment.p_memsz) as usize;
            let code = segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_X != 0;
            inside |= code && range.contains(&offset);
            if segment.p_type == libc::PT_GNU_EH_FRAME {
                table = Some(image() + range.start);
            }
        }
        table.filter(|_| inside).map(|header| Self { header })
    }

    /// The rules that hold at `address`.
    fn rules(&self, address: u64) -> Option<Rules> {
        // SAFETY: the search table of `.eh_frame_hdr` in the form that linkers
        // give it, which is checked first; its entries lead to whole records
        // of `.eh_frame`.
        unsafe {
            let mut at = Cursor(self.header);
            // Version 1; pointer, count and table as linkers encode them.
            if at.u32() != u32::from_le_bytes([1, 0x1b, 0x03, 0x3b]) {
                return None;
            }
            at.u32();
            let mut count = at.u32() as usize;
            let entry = |nth: usize| {
                let mut at = Cursor(at.0 + 8 * nth);
                let start = self.header.wrapping_add_signed(at.i32() as isize);
                let record = self.header.wrapping_add_signed(at.i32() as isize);
                (start as u64, record)
            };
            // The last entry that does not begin behind the address.
            let mut low = 0;
            while count > 1 {
                let half = count / 2;
                if entry(low + half).0 <= address {
                    low += half;
                }
                count -= half;
            }
            let (start, record) = entry(low);
            if start > address {
                return None;
            }
            describe(record, address)
        }
    }
}

/// How to find a frame: its address is `register` + `offset`, the return
/// address lies below it, and the caller's RBP was saved at `base` from it.
#[derive(Clone, Copy, Default)]
struct Rules {
    register: u64,
    offset: i64,
    base: Option<i64>,
}

/// Reads the record of a function (FDE) and the common one (CIE) before it.
///
/// # Safety
/// `record` is the address of a whole record.
unsafe fn describe(record: usize, address: u64) -> Option<Rules> {
    // SAFETY: the caller's; lengths are checked as far as they matter.
    unsafe {
        let mut own = Cursor(record);
        let end = own.length()?;
        let place = own.0;
        let mut common = Cursor(place - own.u32() as usize);
        let start = own.0 as i64 + i64::from(own.i32());
        let length = own.u32();
        if address >= start as u64 + u64::from(length) {
            return None;
        }
        let skip = own.unsigned() as usize;
        let body = own.0 + skip;

        let common_end = common.length()?;
        // CIE id 0, version 1, augmentation "zR", which is what code without
        // landing pads has.
        if common.u32() != 0 || common.u32() != u32::from_le_bytes([1, b'z', b'R', 0]) {
            return None;
        }
        let mut frame = Frame {
            code: common.unsigned(),
            data: common.signed(),
            ..Frame::default()
        };
        common.unsigned(); // the column of the return address
        let skip = common.unsigned() as usize;
        // Relative 32-bit pointers, as read above.
        if skip != 1 || common.u8() != 0x1b {
            return None;
        }
        frame.run(common, common_end, u64::MAX)?;
        frame.initial = frame.rules;
        frame.place = start as u64;
        frame.run(Cursor(body), end, address)?;
        Some(frame.rules)
    }
}

/// The machine that executes call frame instructions.
#[derive(Default)]
struct Frame {
    code: u64,
    data: i64,
    place: u64,
    rules: Rules,
    initial: Rules,
    kept: [Rules; 4],
    depth: usize,
}

impl Frame {
    /// Executes until `end` or until the instructions for `address` are done.
    ///
    /// # Safety
    /// Whole instructions lie between `at` and `end`.
    unsafe fn run(&mut self, mut at: Cursor, end: usize, address: u64) -> Option<()> {
        // SAFETY: the caller's.
        unsafe {
            while at.0 < end {
                let byte = at.u8();
                let low = u64::from(byte & 0x3f);
                let mut step = None;
                match byte {
                    0x40..=0x7f => step = Some(low),
                    0x02 => step = Some(at.u8().into()),
                    0x03 => step = Some(u64::from(at.u8()) | u64::from(at.u8()) << 8),
                    0x04 => step = Some(at.u32().into()),
                    0x80..=0xbf => {
                        let offset = at.unsigned();
                        self.saved(low, offset);
                    }
                    0x05 => {
                        let register = at.unsigned();
                        let offset = at.unsigned();
                        self.saved(register, offset);
                    }
                    0xc0..=0xff => self.restored(low),
                    0x06 => {
                        let register = at.unsigned();
                        self.restored(register);
                    }
                    0x0a => {
                        *self.kept.get_mut(self.depth)? = self.rules;
                        self.depth += 1;
                    }
                    0x0b => {
                        self.depth = self.depth.checked_sub(1)?;
                        self.rules = self.kept[self.depth];
                    }
                    0x0c => {
                        self.rules.register = at.unsigned();
                        self.rules.offset = at.unsigned() as i64;
                    }
                    0x0d => self.rules.register = at.unsigned(),
                    0x0e => self.rules.offset = at.unsigned() as i64,
                    0x00 => {}
                    0x2e => _ = at.unsigned(), // the size of arguments
                    _ => return None,
                }
                if let Some(step) = step {
                    self.place += step * self.code;
                    if self.place > address {
                        return Some(());
                    }
                }
            }
        }
        Some(())
    }

    fn saved(&mut self, register: u64, offset: u64) {
        if register == RBP {
            self.rules.base = Some(offset as i64 * self.data);
        }
    }

    fn restored(&mut self, register: u64) {
        if register == RBP {
            self.rules.base = self.initial.base;
        }
    }
}

/// Reads on from an address. Every method needs that many readable bytes.
struct Cursor(usize);

impl Cursor {
    unsafe fn u8(&mut self) -> u8 {
        // SAFETY: the caller's.
        let value = unsafe { *(self.0 as *const u8) };
        self.0 += 1;
        value
    }

    unsafe fn u32(&mut self) -> u32 {
        // SAFETY: the caller's.
        let value = unsafe { read_unaligned(self.0 as *const u32) };
        self.0 += 4;
        value
    }

    unsafe fn i32(&mut self) -> i32 {
        // SAFETY: the caller's.
        unsafe { self.u32() as i32 }
    }

    /// The length of a record; returns its end. None for the 64-bit form.
    unsafe fn length(&mut self) -> Option<usize> {
        // SAFETY: the caller's.
        let length = unsafe { self.u32() };
        (length != u32::MAX).then_some(self.0 + length as usize)
    }

    /// An unsigned LEB128 number.
    unsafe fn unsigned(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            // SAFETY: the caller's.
            let byte = unsafe { self.u8() };
            value |= u64::from(byte & 0x7f) << (shift & 63);
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    /// A signed LEB128 number.
    unsafe fn signed(&mut self) -> i64 {
        let (mut value, mut shift) = (0i64, 0);
        loop {
            // SAFETY: the caller's.
            let byte = unsafe { self.u8() };
            value |= i64::from(byte & 0x7f) << (shift & 63);
            shift += 7;
            if byte & 0x80 == 0 {
                let unused = 64u32.saturating_sub(shift);
                return value << unused >> unused;
            }
        }
    }
}
