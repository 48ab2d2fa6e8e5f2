/// How one operand of a row is encoded, in the letters of the manuals' opcode maps.
///
/// The capital says where the operand comes from, the small letters how large it is. Where the manuals have several
/// letters for one place (E, M, R, N, Q, U, W are all ModRM.rm) the row's `Match` says which of register and memory
/// is allowed.
///
/// Source: [SDM2 App. A.2.1, A.2.2]; differs: `n`, `h`, `f`, `e` and the mixed sizes are ours.
struct OperandSpec: BitwiseCopyable {
    /// Bits 3:0 source, 8:4 size, 12:9 register class, 15:13 number of a fixed register.
    let bits: UInt16

    enum Source: UInt8, BitwiseCopyable {
        case none
        /// ModRM.rm: a register or memory.
        case rm
        /// ModRM.reg.
        case reg
        /// The low three bits of the opcode.
        case opcode
        /// Named by the opcode alone.
        case fixed
        /// VEX.vvvv.
        case vvvv
        /// Bits 7:4 of a trailing immediate byte.
        case is4
        case immediate
        /// The constant 1 of the shift-by-one forms.
        case one
        /// A branch displacement.
        case relative
        /// A selector and offset in the instruction.
        case far
        /// An address without ModRM.
        case moffs
        /// DS:rSI, where the segment can be overridden.
        case stringSource
        /// ES:rDI.
        case stringDestination
        /// DS:rBX+AL.
        case translate
    }

    /// Operand sizes; the comment gives bytes.
    enum Size: UInt8, BitwiseCopyable {
        /// Not a memory access, or one whose size the encoding does not tell.
        case none
        /// 1; 2; 4; 8; 10; 16; 32; 64.
        case b, w, d, q, t, dq, qq, m64
        /// 2, 4 or 8: the operand size.
        case v
        /// 2 or 4: the operand size, no wider than 4.
        case z
        /// 4, or 8 with REX.W or VEX.W in 64-bit mode.
        case y
        /// 4, or 8 in 64-bit mode.
        case n
        /// 16 or 32: the vector length; and its half, quarter and eighth.
        case x, h, f, e
        /// 4, 6 or 10: a far pointer in memory.
        case p
        /// 6 or 10: a pseudo-descriptor.
        case s
        /// 4 or 8: the pair of bounds of BOUND.
        case a
        /// An immediate byte that is sign-extended to the operand size.
        case bs
        /// 14 or 28; 94 or 108: x87 environment and state.
        case env, state
        /// 512: the FXSAVE area.
        case fx
        /// A register of the operand size, or 2 of memory.
        case vw
        /// A register of 4 or 8 as `y`, or 1 or 2 of memory.
        case yb, yw
        /// A register of the address size; no memory.
        case address
    }

    /// The register file, before size picks a `Register.Class`.
    enum File: UInt8, BitwiseCopyable {
        case general, segment, control, debug, x87, mmx, vector
    }

    @inline(__always)
    init(_ source: Source, _ size: Size, _ file: File = .general, number: UInt8 = 0) {
        bits =
            UInt16(source.rawValue) | UInt16(size.rawValue) &<< 4 | UInt16(file.rawValue) &<< 9
            | UInt16(number) &<< 13
    }

    @inline(__always)
    var source: Source { unsafe unsafeBitCast(UInt8(truncatingIfNeeded: bits & 15), to: Source.self) }
    @inline(__always)
    var size: Size { unsafe unsafeBitCast(UInt8(truncatingIfNeeded: bits &>> 4 & 31), to: Size.self) }
    @inline(__always)
    var file: File { unsafe unsafeBitCast(UInt8(truncatingIfNeeded: bits &>> 9 & 15), to: File.self) }
    @inline(__always)
    var number: UInt8 { UInt8(truncatingIfNeeded: bits &>> 13) }

    /// Whether the operand is encoded in a ModRM byte.
    var usesModRM: Bool { source == .rm || source == .reg }
}

// The notation itself: the one place where these names are spelled as the manuals spell them.
extension OperandSpec {
    @inline(__always) static var none: Self { Self(.none, .none) }

    // ModRM.rm, general register or memory.
    @inline(__always) static var Eb: Self { Self(.rm, .b) }
    @inline(__always) static var Ew: Self { Self(.rm, .w) }
    @inline(__always) static var Ed: Self { Self(.rm, .d) }
    @inline(__always) static var Eq: Self { Self(.rm, .q) }
    @inline(__always) static var Ev: Self { Self(.rm, .v) }
    @inline(__always) static var Ey: Self { Self(.rm, .y) }
    @inline(__always) static var Ez: Self { Self(.rm, .z) }
    @inline(__always) static var En: Self { Self(.rm, .n) }
    @inline(__always) static var RvMw: Self { Self(.rm, .vw) }
    @inline(__always) static var RyMb: Self { Self(.rm, .yb) }
    @inline(__always) static var RyMw: Self { Self(.rm, .yw) }

    // ModRM.rm, memory only.
    @inline(__always) static var M: Self { Self(.rm, .none) }
    @inline(__always) static var Mb: Self { Self(.rm, .b) }
    @inline(__always) static var Mw: Self { Self(.rm, .w) }
    @inline(__always) static var Md: Self { Self(.rm, .d) }
    @inline(__always) static var Mq: Self { Self(.rm, .q) }
    @inline(__always) static var Mdq: Self { Self(.rm, .dq) }
    @inline(__always) static var Mqq: Self { Self(.rm, .qq) }
    @inline(__always) static var Mx: Self { Self(.rm, .x) }
    @inline(__always) static var Mh: Self { Self(.rm, .h) }
    @inline(__always) static var My: Self { Self(.rm, .y) }
    @inline(__always) static var Mv: Self { Self(.rm, .v) }
    @inline(__always) static var Mz: Self { Self(.rm, .z) }
    @inline(__always) static var Mt: Self { Self(.rm, .t) }
    @inline(__always) static var Mp: Self { Self(.rm, .p) }
    @inline(__always) static var Ms: Self { Self(.rm, .s) }
    @inline(__always) static var Ma: Self { Self(.rm, .a) }
    @inline(__always) static var Menv: Self { Self(.rm, .env) }
    @inline(__always) static var Mstate: Self { Self(.rm, .state) }
    @inline(__always) static var Mfx: Self { Self(.rm, .fx) }

    // ModRM.reg.
    @inline(__always) static var Gb: Self { Self(.reg, .b) }
    @inline(__always) static var Gw: Self { Self(.reg, .w) }
    @inline(__always) static var Gd: Self { Self(.reg, .d) }
    @inline(__always) static var Gv: Self { Self(.reg, .v) }
    @inline(__always) static var Gy: Self { Self(.reg, .y) }
    @inline(__always) static var Gz: Self { Self(.reg, .z) }
    @inline(__always) static var Gn: Self { Self(.reg, .n) }
    @inline(__always) static var Sw: Self { Self(.reg, .w, .segment) }
    @inline(__always) static var Cn: Self { Self(.reg, .n, .control) }
    @inline(__always) static var Dn: Self { Self(.reg, .n, .debug) }

    // The opcode names the register.
    @inline(__always) static var Zb: Self { Self(.opcode, .b) }
    @inline(__always) static var Zv: Self { Self(.opcode, .v) }
    @inline(__always) static var AL: Self { Self(.fixed, .b, .general, number: 0) }
    @inline(__always) static var CL: Self { Self(.fixed, .b, .general, number: 1) }
    @inline(__always) static var AX: Self { Self(.fixed, .w, .general, number: 0) }
    @inline(__always) static var DX: Self { Self(.fixed, .w, .general, number: 2) }
    @inline(__always) static var eAX: Self { Self(.fixed, .z, .general, number: 0) }
    @inline(__always) static var rAX: Self { Self(.fixed, .v, .general, number: 0) }
    @inline(__always) static var rAXa: Self { Self(.fixed, .address, .general, number: 0) }
    @inline(__always) static var ES: Self { Self(.fixed, .w, .segment, number: 0) }
    @inline(__always) static var CS: Self { Self(.fixed, .w, .segment, number: 1) }
    @inline(__always) static var SS: Self { Self(.fixed, .w, .segment, number: 2) }
    @inline(__always) static var DS: Self { Self(.fixed, .w, .segment, number: 3) }
    @inline(__always) static var FS: Self { Self(.fixed, .w, .segment, number: 4) }
    @inline(__always) static var GS: Self { Self(.fixed, .w, .segment, number: 5) }
    @inline(__always) static var ST0: Self { Self(.fixed, .t, .x87, number: 0) }
    @inline(__always) static var XMM0: Self { Self(.fixed, .dq, .vector, number: 0) }

    // x87 stack register in ModRM.rm.
    @inline(__always) static var STi: Self { Self(.rm, .t, .x87) }

    // MMX: P is ModRM.reg, Q is ModRM.rm.
    @inline(__always) static var Pq: Self { Self(.reg, .q, .mmx) }
    @inline(__always) static var Qd: Self { Self(.rm, .d, .mmx) }
    @inline(__always) static var Qq: Self { Self(.rm, .q, .mmx) }

    // Vector: V is ModRM.reg, W is ModRM.rm, H is VEX.vvvv, L is in an immediate.
    @inline(__always) static var Vd: Self { Self(.reg, .d, .vector) }
    @inline(__always) static var Vq: Self { Self(.reg, .q, .vector) }
    @inline(__always) static var Vdq: Self { Self(.reg, .dq, .vector) }
    @inline(__always) static var Vqq: Self { Self(.reg, .qq, .vector) }
    @inline(__always) static var Vx: Self { Self(.reg, .x, .vector) }
    @inline(__always) static var Vh: Self { Self(.reg, .h, .vector) }
    @inline(__always) static var Wb: Self { Self(.rm, .b, .vector) }
    @inline(__always) static var Ww: Self { Self(.rm, .w, .vector) }
    @inline(__always) static var Wd: Self { Self(.rm, .d, .vector) }
    @inline(__always) static var Wq: Self { Self(.rm, .q, .vector) }
    @inline(__always) static var Wdq: Self { Self(.rm, .dq, .vector) }
    @inline(__always) static var Wqq: Self { Self(.rm, .qq, .vector) }
    @inline(__always) static var Wx: Self { Self(.rm, .x, .vector) }
    @inline(__always) static var Wh: Self { Self(.rm, .h, .vector) }
    @inline(__always) static var Wf: Self { Self(.rm, .f, .vector) }
    @inline(__always) static var We: Self { Self(.rm, .e, .vector) }
    @inline(__always) static var Hd: Self { Self(.vvvv, .d, .vector) }
    @inline(__always) static var Hq: Self { Self(.vvvv, .q, .vector) }
    @inline(__always) static var Hdq: Self { Self(.vvvv, .dq, .vector) }
    @inline(__always) static var Hqq: Self { Self(.vvvv, .qq, .vector) }
    @inline(__always) static var Hx: Self { Self(.vvvv, .x, .vector) }
    @inline(__always) static var Ldq: Self { Self(.is4, .dq, .vector) }
    @inline(__always) static var Lx: Self { Self(.is4, .x, .vector) }

    // General register in VEX.vvvv.
    @inline(__always) static var By: Self { Self(.vvvv, .y) }

    // Immediates and branch targets.
    @inline(__always) static var Ib: Self { Self(.immediate, .b) }
    @inline(__always) static var Ibs: Self { Self(.immediate, .bs) }
    @inline(__always) static var Iw: Self { Self(.immediate, .w) }
    @inline(__always) static var Iz: Self { Self(.immediate, .z) }
    @inline(__always) static var Iv: Self { Self(.immediate, .v) }
    @inline(__always) static var one: Self { Self(.one, .b) }
    @inline(__always) static var Jb: Self { Self(.relative, .b) }
    @inline(__always) static var Jz: Self { Self(.relative, .z) }
    @inline(__always) static var Ap: Self { Self(.far, .p) }

    // Addresses without ModRM.
    @inline(__always) static var Ob: Self { Self(.moffs, .b) }
    @inline(__always) static var Ov: Self { Self(.moffs, .v) }
    @inline(__always) static var Xb: Self { Self(.stringSource, .b) }
    @inline(__always) static var Xv: Self { Self(.stringSource, .v) }
    @inline(__always) static var Xz: Self { Self(.stringSource, .z) }
    @inline(__always) static var Yb: Self { Self(.stringDestination, .b) }
    @inline(__always) static var Yv: Self { Self(.stringDestination, .v) }
    @inline(__always) static var Yz: Self { Self(.stringDestination, .z) }
    @inline(__always) static var BXAL: Self { Self(.translate, .b) }
}
