/// What an encoding must look like, beyond its opcode, for a row to be its row.
///
/// The decoder gathers the facts of an encoding in one word, `context`; a row matches if the bits that it cares about
/// (`mask`) have the values that it wants. A chain reads as the manuals' notation does: `.p66.r2.reg` is "66 … /2, mod = 3".
///
/// ```
///  17   16  15   14 13 12 11   10   9 8  7   6     5..3 2..0
/// rexB a64 a16   L  Y  W  o16  m64  rep  66  mod=3  rm   reg
/// ```
struct Match: BitwiseCopyable {
    let value: UInt32
    let mask: UInt32

    @inline(__always)
    init(_ value: UInt32, _ mask: UInt32) {
        self.value = value
        self.mask = mask
    }

    @inline(__always)
    private func and(_ value: UInt32, _ mask: UInt32) -> Self { Self(self.value | value, self.mask | mask) }

    /// Bits of the context.
    enum Bit {
        static var register: UInt32 { 0x40 }
        static var p66: UInt32 { 0x80 }
        static var f3: UInt32 { 0x100 }
        static var f2: UInt32 { 0x200 }
        static var mode64: UInt32 { 0x400 }
        /// The operand size, before a row's default, is 16 bits.
        static var o16: UInt32 { 0x800 }
        /// REX.W or VEX.W as encoded.
        static var w: UInt32 { 0x1000 }
        /// REX.W or VEX.W in 64-bit mode: VEX.W does not widen a general register elsewhere.
        static var y: UInt32 { 0x2000 }
        static var l: UInt32 { 0x4000 }
        static var a16: UInt32 { 0x8000 }
        static var a64: UInt32 { 0x1_0000 }
        static var rexB: UInt32 { 0x2_0000 }
    }
    static var modRMBits: UInt32 { 0x7F }

    /// Anything.
    @inline(__always) static var any: Self { Self(0, 0) }

    /// ModRM.reg = 0.
    @inline(__always) static var r0: Self { Self(0x0, 0x7) }
    @inline(__always) static var r1: Self { Self(0x1, 0x7) }
    @inline(__always) static var r2: Self { Self(0x2, 0x7) }
    @inline(__always) static var r3: Self { Self(0x3, 0x7) }
    @inline(__always) static var r4: Self { Self(0x4, 0x7) }
    @inline(__always) static var r5: Self { Self(0x5, 0x7) }
    @inline(__always) static var r6: Self { Self(0x6, 0x7) }
    @inline(__always) static var r7: Self { Self(0x7, 0x7) }
    /// ModRM.rm = 0.
    @inline(__always) static var rm0: Self { Self(0x0, 0x38) }
    @inline(__always) static var rm1: Self { Self(0x8, 0x38) }
    @inline(__always) static var rm2: Self { Self(0x10, 0x38) }
    @inline(__always) static var rm3: Self { Self(0x18, 0x38) }
    @inline(__always) static var rm4: Self { Self(0x20, 0x38) }
    @inline(__always) static var rm5: Self { Self(0x28, 0x38) }
    @inline(__always) static var rm6: Self { Self(0x30, 0x38) }
    @inline(__always) static var rm7: Self { Self(0x38, 0x38) }
    /// ModRM.rm is memory.
    @inline(__always) static var mem: Self { Self(0x0, 0x40) }
    /// ModRM.rm is a register.
    @inline(__always) static var reg: Self { Self(0x40, 0x40) }
    /// None of 66, F3 and F2.
    @inline(__always) static var np: Self { Self(0x0, 0x380) }
    /// 66 as a mandatory prefix, without F3 and F2.
    @inline(__always) static var p66: Self { Self(0x80, 0x380) }
    /// No 66.
    @inline(__always) static var no66: Self { Self(0x0, 0x80) }
    /// F3 as a mandatory prefix.
    @inline(__always) static var f3: Self { Self(0x100, 0x300) }
    /// F2 as a mandatory prefix.
    @inline(__always) static var f2: Self { Self(0x200, 0x300) }
    /// Neither F3 nor F2; 66 keeps its usual meaning.
    @inline(__always) static var norep: Self { Self(0x0, 0x300) }
    /// Not F3.
    @inline(__always) static var notF3: Self { Self(0x0, 0x100) }
    /// 64-bit mode.
    @inline(__always) static var m64: Self { Self(0x400, 0x400) }
    /// 16-bit and 32-bit code: invalid in 64-bit mode.
    @inline(__always) static var m32: Self { Self(0x0, 0x400) }
    /// 16-bit operand size.
    @inline(__always) static var o16: Self { Self(0x800, 0x800) }
    /// Operand size other than 16 bits.
    @inline(__always) static var o32: Self { Self(0x0, 0x800) }
    /// REX.W or VEX.W clear.
    @inline(__always) static var w0: Self { Self(0x0, 0x1000) }
    /// REX.W or VEX.W set.
    @inline(__always) static var w1: Self { Self(0x1000, 0x1000) }
    /// No 64-bit general registers.
    @inline(__always) static var y0: Self { Self(0x0, 0x2000) }
    /// REX.W or VEX.W set, in 64-bit mode.
    @inline(__always) static var y1: Self { Self(0x2000, 0x2000) }
    /// VEX.L clear.
    @inline(__always) static var l0: Self { Self(0x0, 0x4000) }
    /// VEX.L set.
    @inline(__always) static var l1: Self { Self(0x4000, 0x4000) }
    /// 16-bit addresses.
    @inline(__always) static var a16: Self { Self(0x8000, 0x8000) }
    /// 32-bit addresses.
    @inline(__always) static var a32: Self { Self(0x0, 0x18000) }
    /// 64-bit addresses.
    @inline(__always) static var a64: Self { Self(0x10000, 0x10000) }
    /// REX.B clear.
    @inline(__always) static var b0: Self { Self(0x0, 0x20000) }
    /// REX.B set.
    @inline(__always) static var b1: Self { Self(0x20000, 0x20000) }

    @inline(__always) var r0: Self { and(0x0, 0x7) }
    @inline(__always) var r1: Self { and(0x1, 0x7) }
    @inline(__always) var r2: Self { and(0x2, 0x7) }
    @inline(__always) var r3: Self { and(0x3, 0x7) }
    @inline(__always) var r4: Self { and(0x4, 0x7) }
    @inline(__always) var r5: Self { and(0x5, 0x7) }
    @inline(__always) var r6: Self { and(0x6, 0x7) }
    @inline(__always) var r7: Self { and(0x7, 0x7) }
    @inline(__always) var rm0: Self { and(0x0, 0x38) }
    @inline(__always) var rm1: Self { and(0x8, 0x38) }
    @inline(__always) var rm2: Self { and(0x10, 0x38) }
    @inline(__always) var rm3: Self { and(0x18, 0x38) }
    @inline(__always) var rm4: Self { and(0x20, 0x38) }
    @inline(__always) var rm5: Self { and(0x28, 0x38) }
    @inline(__always) var rm6: Self { and(0x30, 0x38) }
    @inline(__always) var rm7: Self { and(0x38, 0x38) }
    @inline(__always) var mem: Self { and(0x0, 0x40) }
    @inline(__always) var reg: Self { and(0x40, 0x40) }
    @inline(__always) var np: Self { and(0x0, 0x380) }
    @inline(__always) var p66: Self { and(0x80, 0x380) }
    @inline(__always) var no66: Self { and(0x0, 0x80) }
    @inline(__always) var f3: Self { and(0x100, 0x300) }
    @inline(__always) var f2: Self { and(0x200, 0x300) }
    @inline(__always) var norep: Self { and(0x0, 0x300) }
    @inline(__always) var notF3: Self { and(0x0, 0x100) }
    @inline(__always) var m64: Self { and(0x400, 0x400) }
    @inline(__always) var m32: Self { and(0x0, 0x400) }
    @inline(__always) var o16: Self { and(0x800, 0x800) }
    @inline(__always) var o32: Self { and(0x0, 0x800) }
    @inline(__always) var w0: Self { and(0x0, 0x1000) }
    @inline(__always) var w1: Self { and(0x1000, 0x1000) }
    @inline(__always) var y0: Self { and(0x0, 0x2000) }
    @inline(__always) var y1: Self { and(0x2000, 0x2000) }
    @inline(__always) var l0: Self { and(0x0, 0x4000) }
    @inline(__always) var l1: Self { and(0x4000, 0x4000) }
    @inline(__always) var a16: Self { and(0x8000, 0x8000) }
    @inline(__always) var a32: Self { and(0x0, 0x18000) }
    @inline(__always) var a64: Self { and(0x10000, 0x10000) }
    @inline(__always) var b0: Self { and(0x0, 0x20000) }
    @inline(__always) var b1: Self { and(0x20000, 0x20000) }
}
