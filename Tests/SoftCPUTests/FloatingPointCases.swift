import X86

@testable import SoftCPU

/// SplitMix64: a case is its seed.
struct CaseGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }

    mutating func below(_ bound: Int) -> Int { Int(next() >> 33) % bound }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
}

/// One instruction with the state that it starts from.
struct FloatingPointCase {
    var bytes: [UInt8]
    var instruction: Instruction
    var state: FloatingPointState
    /// 1024 bytes of memory, 64-byte-aligned where it is run; the operand starts at `operandOffset`.
    var memory: [UInt8]
    static let operandOffset = 256
}

extension CaseGenerator {
    /// An encoding of `row` in 64-bit mode that uses neither rsp nor r11 and addresses memory through a register alone.
    mutating func encoding(of row: RowID) -> ([UInt8], Instruction)? {
        for _ in 0..<400 {
            var bytes: [UInt8] = []
            if row.unit == .x87, chance(30) { bytes.append(0x66) }
            if row.mnemonic == .crc32, chance(40) { bytes.append(0x66) }
            if row.mandatoryPrefix != 0 { bytes.append(row.mandatoryPrefix) }
            // Superfluous prefixes change nothing.
            if row.mandatoryPrefix > 0x66, row.mnemonic != .crc32, chance(10) { bytes.insert(0x66, at: 0) }
            if chance(70) { bytes.append(0x40 | UInt8(below(16))) }
            switch row.map {
            case .map0F: bytes.append(0x0F)
            case .map0F38: bytes += [0x0F, 0x38]
            case .map0F3A: bytes += [0x0F, 0x3A]
            default: break
            }
            bytes.append(row.opcode)
            if row.usesModRM {
                let memory = row.wantsMemory ?? chance(50)
                let reg = row.modRMReg ?? UInt8(below(8))
                let rm = row.modRMRM ?? UInt8(below(8))
                if memory {
                    // SIB and RIP-relative forms are the core's.
                    guard rm != 4 else { continue }
                    bytes += [0x40 | reg << 3 | rm, UInt8(below(4)) &* 16]
                } else {
                    bytes.append(0xC0 | reg << 3 | rm)
                }
            }
            // The decoder takes the immediates that it wants.
            bytes += [UInt8(truncatingIfNeeded: next()), UInt8(truncatingIfNeeded: next())]
            guard let instruction = try? Decoder.decode(bytes, count: bytes.count, mode: .bits64), instruction.row == row,
                !usesReserved(instruction)
            else { continue }
            return (Array(bytes.prefix(Int(instruction.length))), instruction)
        }
        return nil
    }

    /// rsp is the oracle's stack, r11 its way out.
    private func usesReserved(_ instruction: Instruction) -> Bool {
        let operands = (0..<instruction.operandCount).map { instruction.register($0) } + [instruction.base]
        return operands.contains { register in
            switch register.registerClass {
            case .low8, .general16, .general32, .general64: register.number == 4 || register.number == 11
            default: false
            }
        }
    }

    // MARK: Values

    mutating func single() -> UInt32 {
        let sign = UInt32(below(2)) << 31
        switch below(12) {
        case 0: return sign
        case 1: return sign | UInt32(truncatingIfNeeded: next()) & 0x7F_FFFF
        case 2: return sign | 1 << UInt32(below(23))
        case 3: return sign | 0x7F80_0000
        case 4: return sign | 0x7FC0_0000 | UInt32(truncatingIfNeeded: next()) & 0x3F_FFFF
        case 5: return sign | 0x7F80_0001 | UInt32(truncatingIfNeeded: next()) & 0x3F_FFFF
        case 6: return sign | 0x7F7F_FFFF
        case 7: return sign | 0x0080_0000 + UInt32(below(3))
        case 8: return Float(below(2000) - 1000).bitPattern
        case 9: return sign | UInt32(110 + below(40)) << 23 | UInt32(truncatingIfNeeded: next()) & 0x7F_FFFF
        case 10: return UInt32(below(300))
        default: return UInt32(truncatingIfNeeded: next())
        }
    }

    mutating func double() -> UInt64 {
        let sign = UInt64(below(2)) << 63
        let fraction = next() & 0xF_FFFF_FFFF_FFFF
        switch below(12) {
        case 0: return sign
        case 1: return sign | fraction
        case 2: return sign | 1 << UInt64(below(52))
        case 3: return sign | 0x7FF0_0000_0000_0000
        case 4: return sign | 0x7FF8_0000_0000_0000 | fraction
        case 5: return sign | 0x7FF0_0000_0000_0001 | fraction & 0x7_FFFF_FFFF_FFFF
        case 6: return sign | 0x7FEF_FFFF_FFFF_FFFF
        case 7: return sign | 0x0010_0000_0000_0000 + UInt64(below(3))
        case 8: return Double(below(2000) - 1000).bitPattern
        // Around the ends of single precision and of integers.
        case 9: return sign | UInt64(860 + below(300)) << 52 | fraction
        case 10: return sign | UInt64(1023 + below(66)) << 52 | fraction
        default: return next()
        }
    }

    /// Ten bytes: of any class the x87 knows, the unsupported ones included.
    mutating func extended() -> [UInt8] {
        let sign = UInt16(below(2)) << 15
        var exponent = UInt16(below(0x8000))
        var significand = next() | 1 << 63
        switch below(14) {
        case 0: (exponent, significand) = (0, 0)
        case 1: (exponent, significand) = (0, next() >> 1)
        case 2: exponent = 0  // pseudo-denormal
        case 3: (exponent, significand) = (0x7FFF, 1 << 63)
        case 4: (exponent, significand) = (0x7FFF, 3 << 62 | next())
        case 5: (exponent, significand) = (0x7FFF, 1 << 63 | next() >> 2 | 1)
        case 6: significand &= ~(1 << 63)  // unnormal
        case 7: (exponent, significand) = (0x7FFF, next() >> 1)  // pseudo-infinity, pseudo-NaN
        case 8: exponent = UInt16(0x3FFF + below(70))
        case 9: (exponent, significand) = (UInt16(0x3FFF + below(30)), (next() | 1 << 63) & ~0 << 40)
        case 10: exponent = UInt16(0x3F80 + below(256))
        case 11: exponent = UInt16(0x3C00 + below(2048))
        case 12: (exponent, significand) = (0x3FFF, 1 << 63)
        default: exponent = UInt16(0x3FFE + below(4))
        }
        exponent |= sign
        return (0..<8).map { UInt8(truncatingIfNeeded: significand >> ($0 * 8)) }
            + [UInt8(truncatingIfNeeded: exponent), UInt8(exponent >> 8)]
    }

    /// Sixteen bytes that may be singles, doubles, small integers, text or anything.
    mutating func vector() -> [UInt8] {
        let words: [UInt64]
        switch below(6) {
        case 0, 1: words = (0..<2).map { _ in UInt64(single()) | UInt64(single()) << 32 }
        case 2, 3: words = [double(), double()]
        case 4: return (0..<16).map { _ in UInt8(below(5)) }
        default: words = [next(), next()]
        }
        return words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
    }

    /// An FXSAVE64 image such as a processor would write.
    mutating func image() -> [UInt8] {
        var state = FloatingPointState()
        let masked = chance(60)
        let control = UInt16(truncatingIfNeeded: next()) & 0x1F3F | (masked ? 0x3F : 0) | 0x40
        var status = UInt16(truncatingIfNeeded: next()) & 0x7F7F
        // Most of the time no exception is pending, or little else would be seen.
        if !chance(10) { status &= ~0x3F | control & 0x3F }
        if chance(40) { status &= ~0x7F }
        status = FXSaveImage.statusWord(status, control: control)
        state.set(FXSaveImage.fcw, control)
        state.set(FXSaveImage.fsw, status)
        state.set(FXSaveImage.ftw, chance(50) ? 0xFF : UInt8(truncatingIfNeeded: next()))
        if status & 0x80 != 0 {
            // Some processors keep these only while an exception is pending.
            state.set(FXSaveImage.fop, UInt16(below(0x800)))
            state.set(FXSaveImage.fip, next() >> 17)
            state.set(FXSaveImage.fdp, next() >> 17)
        }
        var mxcsr = UInt32(truncatingIfNeeded: next()) & 0xFFFF
        if chance(60) { mxcsr |= 0x1F80 }
        if chance(50) { mxcsr &= ~0x3F }
        if chance(40) { mxcsr = mxcsr & 0x3F | 0x1F80 }
        state.set(FXSaveImage.mxcsr, mxcsr)
        for register in 0..<8 {
            let mmx = chance(20)
            state.image.replaceSubrange(
                FXSaveImage.st + register * 16..<FXSaveImage.st + register * 16 + 10,
                with: mmx ? Array(vector()[0..<8]) + [0xFF, 0xFF] : extended())
        }
        for register in 0..<16 {
            state.image.replaceSubrange(
                FXSaveImage.xmm + register * 16..<FXSaveImage.xmm + register * 16 + 16, with: vector())
        }
        return state.image
    }

    mutating func general() -> UInt64 {
        switch below(5) {
        case 0: UInt64(below(20))
        case 1: UInt64(bitPattern: Int64(below(40) - 20))
        case 2: next() & 0xFFFF_FFFF
        default: next()
        }
    }

    // MARK: Cases

    /// What memory holds where the operand of `instruction` starts.
    private mutating func operand(for instruction: Instruction) -> [UInt8] {
        switch instruction.mnemonic {
        case .fxrstor, .fxrstor64: return image()
        case .ldmxcsr:
            let value = UInt16(truncatingIfNeeded: next())
            return [UInt8(truncatingIfNeeded: value), UInt8(value >> 8), 0, 0]
        case .fbld:
            // Mostly decimal digits.
            return (0..<9).map { _ in UInt8(below(10) << 4 | below(10)) } + [UInt8(below(2)) << 7]
        default: break
        }
        return instruction.size(0) == 10 ? extended() : vector()
    }

    /// What surrounds operands.
    private static let background: [UInt8] = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 37 ^ $0 >> 3) }

    mutating func makeCase(_ row: RowID, memoryAddress: UInt64) -> FloatingPointCase? {
        guard let (bytes, instruction) = encoding(of: row) else { return nil }
        var state = FloatingPointState()
        state.image = image()
        for register in 0..<16 { state.general[register] = general() }
        state.flags = 2 | next() & 0x8D5
        var memory = CaseGenerator.background
        let operand = operand(for: instruction)
        memory.replaceSubrange(
            FloatingPointCase.operandOffset..<FloatingPointCase.operandOffset + operand.count, with: operand)
        let address = memoryAddress + UInt64(FloatingPointCase.operandOffset)
        if instruction.hasMemory {
            state.general[Int(instruction.base.number)] = address &- UInt64(bitPattern: instruction.displacement)
        }
        if row.mnemonic == .maskmovq || row.mnemonic == .maskmovdqu { state.general[7] = address }
        return FloatingPointCase(bytes: bytes, instruction: instruction, state: state, memory: memory)
    }
}
