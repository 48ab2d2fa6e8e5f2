internal import CHost
internal import X86

/// The vector instructions that a C library's memory and string functions are made of, for handlers that execute them
/// in place: with a constant operation, `execute` becomes the few host instructions that it names.
///
/// None raises an exception, touches MXCSR or sets flags. Everything else, and these too, is a `HostOperation`; a test
/// holds the two against each other.
enum HotVector: UInt8, BitwiseCopyable, CaseIterable {
    /// MOVAPS, MOVAPD, MOVUPS, MOVUPD, MOVDQA, MOVDQU, LDDQU and the non-temporal moves of 16 bytes, whichever way.
    case move16
    /// To a vector register, the rest of it cleared: MOVD, MOVSS from memory; MOVQ, MOVSD from memory.
    case load4, load8
    /// To memory, or into the low part of a register whose rest stays: MOVD, MOVSS; MOVQ, MOVSD, MOVLPS, MOVLPD.
    case move4, move8
    /// MOVD and MOVQ to a general register.
    case toGeneral4, toGeneral8
    /// MOVHPS and MOVHPD from memory, MOVLHPS; MOVHPS and MOVHPD to memory.
    case loadHigh, storeHigh
    case xor, or, and, andNot
    case add8, add16, add32, add64, subtract8, subtract16, subtract32, subtract64
    case equal8, equal16, equal32
    case greater8, greater16, greater32
    case minimumUnsigned8, maximumUnsigned8
    case unpackLow8, unpackLow16, unpackLow32, unpackLow64
    case unpackHigh8, unpackHigh16, unpackHigh32, unpackHigh64
    /// PSHUFD, with its immediate.
    case shuffle32
    /// PMOVMSKB.
    case byteMask
}

extension HotVector {
    /// The operation that an instruction is, or nil.
    static func classify(_ instruction: Instruction) -> HotVector? {
        let fromMemory = instruction.kind(1) == .memory
        let toMemory = instruction.kind(0) == .memory
        let toGeneral = instruction.kind(0) == .register && instruction.register(0).registerClass.rawValue < Register.Class.segment.rawValue
        guard !HotVector.touchesMMX(instruction) else { return nil }
        switch instruction.mnemonic {
        case .movaps, .movapd, .movups, .movupd, .movdqa, .movdqu, .lddqu, .movntps, .movntpd, .movntdq, .movntdqa:
            return .move16
        case .movss: return fromMemory ? .load4 : .move4
        case .movsd: return fromMemory ? .load8 : .move8
        case .movd: return toGeneral ? .toGeneral4 : toMemory ? .move4 : .load4
        case .movq: return toGeneral ? .toGeneral8 : toMemory ? .move8 : .load8
        case .movlps, .movlpd: return .move8
        case .movlhps: return .loadHigh
        case .movhps, .movhpd: return toMemory ? .storeHigh : .loadHigh
        case .xorps, .xorpd, .pxor: return .xor
        case .orps, .orpd, .por: return .or
        case .andps, .andpd, .pand: return .and
        case .andnps, .andnpd, .pandn: return .andNot
        case .paddb: return .add8
        case .paddw: return .add16
        case .paddd: return .add32
        case .paddq: return .add64
        case .psubb: return .subtract8
        case .psubw: return .subtract16
        case .psubd: return .subtract32
        case .psubq: return .subtract64
        case .pcmpeqb: return .equal8
        case .pcmpeqw: return .equal16
        case .pcmpeqd: return .equal32
        case .pcmpgtb: return .greater8
        case .pcmpgtw: return .greater16
        case .pcmpgtd: return .greater32
        case .pminub: return .minimumUnsigned8
        case .pmaxub: return .maximumUnsigned8
        case .punpcklbw: return .unpackLow8
        case .punpcklwd: return .unpackLow16
        case .punpckldq: return .unpackLow32
        case .punpcklqdq: return .unpackLow64
        case .punpckhbw: return .unpackHigh8
        case .punpckhwd: return .unpackHigh16
        case .punpckhdq: return .unpackHigh32
        case .punpckhqdq: return .unpackHigh64
        case .pshufd: return .shuffle32
        case .pmovmskb: return .byteMask
        default: return nil
        }
    }

    /// MMX has rules of its own: `HostOperation.Unit.mmx`. VEX encodings clear more than these do.
    private static func touchesMMX(_ instruction: Instruction) -> Bool {
        instruction.row.map.isVEX || instruction.register(0).registerClass == .mmx
            || instruction.register(1).registerClass == .mmx
    }

    /// Executes the operation.
    ///
    /// - Parameters:
    ///   - destination, source: addresses of the first and second operand: of an XMM register in the image, a general
    ///     register, or host memory that is as large as the operand and need not be aligned here.
    ///   - immediate: PSHUFD's.
    @inline(__always)
    func execute(destination: UInt, source: UInt, immediate: UInt8 = 0) {
        switch self {
        case .move16: store(destination, load(source, as: SIMD2<UInt64>.self))
        case .load4: store(destination, SIMD2(UInt64(load(source, as: UInt32.self)), 0))
        case .load8: store(destination, SIMD2(load(source, as: UInt64.self), 0))
        case .move4: store(destination, load(source, as: UInt32.self))
        case .move8: store(destination, load(source, as: UInt64.self))
        case .toGeneral4: store(destination, UInt64(load(source, as: UInt32.self)))
        case .toGeneral8: store(destination, load(source, as: UInt64.self))
        case .loadHigh: store(destination &+ 8, load(source, as: UInt64.self))
        case .storeHigh: store(destination, load(source &+ 8, as: UInt64.self))
        case .xor: combine(destination, source, SIMD2<UInt64>.self) { $0 ^ $1 }
        case .or: combine(destination, source, SIMD2<UInt64>.self) { $0 | $1 }
        case .and: combine(destination, source, SIMD2<UInt64>.self) { $0 & $1 }
        case .andNot: combine(destination, source, SIMD2<UInt64>.self) { ~$0 & $1 }
        case .add8: combine(destination, source, SIMD16<UInt8>.self) { $0 &+ $1 }
        case .add16: combine(destination, source, SIMD8<UInt16>.self) { $0 &+ $1 }
        case .add32: combine(destination, source, SIMD4<UInt32>.self) { $0 &+ $1 }
        case .add64: combine(destination, source, SIMD2<UInt64>.self) { $0 &+ $1 }
        case .subtract8: combine(destination, source, SIMD16<UInt8>.self) { $0 &- $1 }
        case .subtract16: combine(destination, source, SIMD8<UInt16>.self) { $0 &- $1 }
        case .subtract32: combine(destination, source, SIMD4<UInt32>.self) { $0 &- $1 }
        case .subtract64: combine(destination, source, SIMD2<UInt64>.self) { $0 &- $1 }
        case .equal8:
            combine(destination, source, SIMD16<Int8>.self) { SIMD16(repeating: 0).replacing(with: -1, where: $0 .== $1) }
        case .equal16:
            combine(destination, source, SIMD8<Int16>.self) { SIMD8(repeating: 0).replacing(with: -1, where: $0 .== $1) }
        case .equal32:
            combine(destination, source, SIMD4<Int32>.self) { SIMD4(repeating: 0).replacing(with: -1, where: $0 .== $1) }
        case .greater8:
            combine(destination, source, SIMD16<Int8>.self) { SIMD16(repeating: 0).replacing(with: -1, where: $0 .> $1) }
        case .greater16:
            combine(destination, source, SIMD8<Int16>.self) { SIMD8(repeating: 0).replacing(with: -1, where: $0 .> $1) }
        case .greater32:
            combine(destination, source, SIMD4<Int32>.self) { SIMD4(repeating: 0).replacing(with: -1, where: $0 .> $1) }
        case .minimumUnsigned8:
            combine(destination, source, SIMD16<UInt8>.self) { $1.replacing(with: $0, where: $0 .< $1) }
        case .maximumUnsigned8:
            combine(destination, source, SIMD16<UInt8>.self) { $1.replacing(with: $0, where: $0 .> $1) }
        case .unpackLow8:
            combine(destination, source, SIMD16<UInt8>.self) {
                var both = $0
                both.evenHalf = $0.lowHalf
                both.oddHalf = $1.lowHalf
                return both
            }
        case .unpackLow16:
            combine(destination, source, SIMD8<UInt16>.self) {
                var both = $0
                both.evenHalf = $0.lowHalf
                both.oddHalf = $1.lowHalf
                return both
            }
        case .unpackLow32:
            combine(destination, source, SIMD4<UInt32>.self) {
                var both = $0
                both.evenHalf = $0.lowHalf
                both.oddHalf = $1.lowHalf
                return both
            }
        case .unpackLow64: combine(destination, source, SIMD2<UInt64>.self) { SIMD2($0.x, $1.x) }
        case .unpackHigh8:
            combine(destination, source, SIMD16<UInt8>.self) {
                var both = $0
                both.evenHalf = $0.highHalf
                both.oddHalf = $1.highHalf
                return both
            }
        case .unpackHigh16:
            combine(destination, source, SIMD8<UInt16>.self) {
                var both = $0
                both.evenHalf = $0.highHalf
                both.oddHalf = $1.highHalf
                return both
            }
        case .unpackHigh32:
            combine(destination, source, SIMD4<UInt32>.self) {
                var both = $0
                both.evenHalf = $0.highHalf
                both.oddHalf = $1.highHalf
                return both
            }
        case .unpackHigh64: combine(destination, source, SIMD2<UInt64>.self) { SIMD2($0.y, $1.y) }
        case .shuffle32:
            let element = UInt(immediate)
            let low0 = load(source &+ (element & 3) &* 4, as: UInt32.self)
            let low1 = load(source &+ (element &>> 2 & 3) &* 4, as: UInt32.self)
            let high0 = load(source &+ (element &>> 4 & 3) &* 4, as: UInt32.self)
            let high1 = load(source &+ (element &>> 6 & 3) &* 4, as: UInt32.self)
            store(destination, SIMD4(low0, low1, high0, high1))
        case .byteMask: store(destination, UInt64(chost_byte_mask(source)))
        }
    }

    @inline(__always)
    private func load<T: BitwiseCopyable>(_ address: UInt, as _: T.Type) -> T {
        unsafe UnsafeRawPointer(bitPattern: address).unsafelyUnwrapped.loadUnaligned(as: T.self)
    }

    @inline(__always)
    private func store<T: BitwiseCopyable>(_ address: UInt, _ value: T) {
        // Memory need not be aligned as T is.
        unsafe UnsafeMutableRawPointer(bitPattern: address).unsafelyUnwrapped.storeBytes(of: value, as: T.self)
    }

    @inline(__always)
    private func combine<T: BitwiseCopyable>(
        _ destination: UInt, _ source: UInt, _: T.Type, _ operation: (T, T) -> T
    ) {
        store(destination, operation(load(destination, as: T.self), load(source, as: T.self)))
    }
}
