//! Which machine instructions a proof of spinning may pass over.
//!
//! An instruction is *plain* if all it does can be seen in the general
//! registers and the arithmetic flags, or writes a value to memory that is a
//! function of those: executed again from the same registers, with the same
//! result in the registers, it leaves memory as it is. So adding to memory is
//! not plain, nor is anything of the vector unit, and nothing that brings in
//! the machine (`rdtsc`, `cpuid`, system calls). Opcodes as in Intel's manual,
//! volume 2, appendix A; what is not known here is not plain.

const ADD: u8 = 0;
const OR: u8 = 1;
const AND: u8 = 4;
const CMP: u8 = 7;

/// The operand byte behind an opcode.
struct ModRm(u8);

impl ModRm {
    /// The operand is a register, not memory.
    fn is_register(&self) -> bool {
        self.0 >> 6 == 3
    }

    fn middle(&self) -> u8 {
        self.0 >> 3 & 7
    }

    /// For arithmetic with the operand as its target: whether it may be done
    /// again without changing memory any further.
    fn repeats(&self, kind: u8) -> bool {
        self.is_register() || matches!(kind, OR | AND | CMP)
    }
}

/// Whether the instruction at `code` is plain.
///
/// # Safety
/// `code` is the address of an instruction that is about to be executed.
pub(crate) unsafe fn is_plain(code: *const u8) -> bool {
    let mut at = code;
    let mut next = || {
        // SAFETY: only bytes of the instruction are read: prefixes are followed
        // by an opcode, and an opcode with operands by their byte.
        unsafe {
            let byte = *at;
            at = at.add(1);
            byte
        }
    };
    let mut repeat = false;
    let mut opcode = next();
    // Prefixes: segments, operand size, lock, repetition; REX comes last.
    while matches!(
        opcode,
        0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x66 | 0xf0 | 0xf2 | 0xf3
    ) {
        repeat |= opcode == 0xf3;
        opcode = next();
    }
    if opcode & 0xf0 == 0x40 {
        opcode = next();
    }
    match opcode {
        0x0f => {
            let second = next();
            match second {
                // Hints, conditional moves, jumps and sets, bit tests and scans,
                // widening moves, byte swaps.
                0x0d | 0x18..=0x1f | 0x40..=0x4f | 0x80..=0x9f | 0xa3 => true,
                0xaf | 0xb6 | 0xb7 | 0xbc..=0xbf | 0xc8..=0xcf => true,
                // Compare-exchange and exchange-add show what was in memory in a
                // register or flag: done again with the same outcome, they
                // write what is there.
                0xb0 | 0xb1 | 0xc0 | 0xc1 => true,
                0xa4 | 0xa5 | 0xab | 0xac | 0xad | 0xb3 | 0xbb => ModRm(next()).is_register(),
                0xba => {
                    let operand = ModRm(next());
                    operand.middle() == 4 || operand.is_register()
                }
                // Fences.
                0xae => {
                    let operand = ModRm(next());
                    operand.is_register() && operand.middle() >= 5 && !repeat
                }
                _ => false,
            }
        }
        0x00..=0x3f => match opcode & 7 {
            0 | 1 => ModRm(next()).repeats(opcode >> 3),
            2..=5 => true,
            _ => false,
        },
        // Pushes, pops, widening moves, multiplication, jumps.
        0x50..=0x5f | 0x63 | 0x68..=0x6b | 0x70..=0x7f => true,
        0x80 | 0x81 | 0x83 => {
            let operand = ModRm(next());
            operand.repeats(operand.middle())
        }
        // Tests, exchanges, moves, addresses, no operation and pause.
        0x84..=0x8b | 0x8d | 0x90..=0x99 | 0xa8 | 0xa9 | 0xb0..=0xbf => true,
        0xc0 | 0xc1 | 0xd0..=0xd3 => ModRm(next()).is_register(),
        // Returns, stores of constants, loops, calls and jumps.
        0xc2 | 0xc3 | 0xc9 | 0xe0..=0xe3 | 0xe8 | 0xe9 | 0xeb => true,
        0xc6 | 0xc7 => ModRm(next()).middle() == ADD,
        0xf6 | 0xf7 => {
            let operand = ModRm(next());
            operand.is_register() || !matches!(operand.middle(), 2 | 3)
        }
        0xfe | 0xff => {
            let operand = ModRm(next());
            match operand.middle() {
                0 | 1 => operand.is_register(),
                2 | 4 | 6 => opcode == 0xff,
                _ => false,
            }
        }
        _ => false,
    }
}
