internal import Glibc
package import X86

/// What of a case's outcome is defined, and where two outcomes differ in it.
package struct Comparison {
    /// RFLAGS bits with a defined result.
    var flags: UInt64 = ~Comparison.resumeFlag
    /// The destination's contents are undefined: a general register, 16 for none, or memory.
    var undefinedRegister = 16
    var ignoresMemory = false
    /// Ranges of memory that hold the x87 pointers, which AMD's processors store only with an exception pending, and
    /// MXCSR_MASK and the reserved words.
    var ignoredMemory: [Range<UInt64>] = []
    /// Several things can be wrong at once, and the order in which processors look is their own: where both outcomes are
    /// exceptions of the same instruction, which of them is not compared.
    var faultOrderIsOpen = false
    /// #AC depends on the processor: areas of many fields, and stores under a mask. Source: [SDM3 §6.15, #AC].
    var alignmentIsOpen = false
    /// A fault leaves what was done before it.
    var faultIsPartial = false
    /// A fault of a memory access depends on the host's vendor.
    var memoryFaultIsOpen = false

    private static let resumeFlag: UInt64 = 1 &<< 16
    static let trapFlag: UInt64 = 1 &<< 8
    /// The value of `CaseRecord.vector` for an instruction that completed.
    package static let completed: UInt64 = 0x100

    init(_ instruction: Instruction, _ input: CaseRecord) {
        let row = instruction.row
        let undefined = row.flagsUndefined
        let bits: [(FlagSet, UInt64)] = [(.cf, 1), (.pf, 4), (.af, 0x10), (.zf, 0x40), (.sf, 0x80), (.of, 0x800)]
        var mask: UInt64 = 0
        for (flag, bit) in bits where undefined.contains(flag) { mask |= bit }
        if let count = Self.shiftCount(instruction, input) {
            let size = UInt64(instruction.size(0) &* 8)
            let masked = count & (size == 64 ? 63 : 31)
            switch row.mnemonic {
            case .shl, .shr:
                if masked == 0 { mask = 0 } else if masked == 1 { mask &= ~0x800 }
                // CF is defined for counts below the operand's width only.
                if masked >= size { mask |= 1 }
            case .sar, .rol, .ror, .rcl, .rcr:
                if masked == 0 { mask = 0 } else if masked == 1 { mask &= ~0x800 }
            case .shld, .shrd:
                if masked == 0 { mask = 0 } else if masked == 1 { mask &= ~0x800 }
                if masked > size {
                    mask = 0x8D5
                    if instruction.kind(0) == .memory { ignoresMemory = true } else { undefinedRegister = Int(instruction.register(0).number) }
                }
            default: break
            }
        }
        flags &= ~mask
        memoryFaultIsOpen = HostVendor.current == .intel && HostVendor.intelLooksElsewhereFirst(instruction)
        switch row.mnemonic {
        case .call, .callf, .jmpf, .ret, .retf, .iret, .iretd, .iretq, .cmps, .movs, .lss, .les, .lds, .enter: faultOrderIsOpen = true
        case .fldenv, .fnstenv, .frstor, .fnsave, .fxsave, .fxsave64, .fxrstor, .fxrstor64, .maskmovq, .maskmovdqu:
            // Many fields, touched in an order of the processor's own.
            faultOrderIsOpen = true
            alignmentIsOpen = true
        case .cmpxchg16b: faultOrderIsOpen = true
        case .pusha, .pushad, .popa, .popad: faultIsPartial = true
        default:
            // A misaligned vector at a stack address that is none: #GP for the one, #SS for the other.
            if row.unit == .sse, !row.allowsUnaligned, instruction.hasMemory { faultOrderIsOpen = true }
            // Whether a load that need not be aligned raises #AC is the processor's own affair.
            if row.unit == .sse, row.allowsUnaligned { alignmentIsOpen = true }
        }
        if let address = Self.effectiveAddress(instruction, input) {
            // An FS or GS offset that is not canonical by itself: AMD's raise #GP, Intel's look at the sum only.
            let base = instruction.segment == .fs ? input.fsBase : instruction.segment == .gs ? input.gsBase : 0
            let offset = Int64(bitPattern: address &- base)
            if base != 0, (offset &<< 16) &>> 16 != offset { faultOrderIsOpen = true }
            func ignore(_ range: Range<UInt64>) { ignoredMemory.append(address &+ range.lowerBound..<address &+ range.upperBound) }
            // Over the end of the canonical addresses: #GP for the one half, #PF for the other.
            if address < 0x8000_0000_0000, address &+ 512 > 0x8000_0000_0000 { faultOrderIsOpen = true }
            guard address < 0x7FFF_FFFF_0000 else { return }
            switch row.mnemonic {
            case .fnstenv, .fnsave: ignore(instruction.operandSize == 2 ? 6..<14 : 12..<28)
            case .fxsave, .fxsave64:
                ignore(6..<24)
                ignore(28..<32)
            default: break
            }
        }
    }

    private static func shiftCount(_ instruction: Instruction, _ input: CaseRecord) -> UInt64? {
        switch instruction.mnemonic {
        case .shl, .shr, .sar, .rol, .ror, .rcl, .rcr, .shld, .shrd: break
        default: return nil
        }
        let last = instruction.operandCount &- 1
        return instruction.kind(last) == .immediate ? instruction.immediate : input[general: 1] & 0xFF
    }

    /// The linear address of the memory operand; nil where there is none, or the encoding has no 32- or 64-bit address.
    package static func effectiveAddress(_ instruction: Instruction, _ input: CaseRecord) -> UInt64? {
        guard instruction.hasMemory, instruction.addressSize >= 4 else { return nil }
        func value(_ register: Register) -> UInt64? {
            switch register.registerClass {
            case .general32, .general64: return input[general: Int(register.number)]
            case .low8: return input[general: 0] & 0xFF
            case .instructionPointer: return input.rip &+ UInt64(instruction.length)
            default: return register == .none ? 0 : nil
            }
        }
        guard let base = value(instruction.base), let index = value(instruction.index) else { return nil }
        var address = base &+ index &* UInt64(instruction.scale) &+ UInt64(bitPattern: instruction.displacement)
        if instruction.addressSize == 4 { address &= 0xFFFF_FFFF }
        guard instruction.mode == .bits64 else { return address }
        if instruction.segment == .fs { address = address &+ input.fsBase }
        if instruction.segment == .gs { address = address &+ input.gsBase }
        return address
    }

    // MARK: -

    /// Rewrites a native outcome so that it tells what the instruction did, not how it was stopped.
    package static func normalise(_ native: CaseRecord, of generated: GeneratedCase, input: CaseRecord) {
        if generated.isSequence {
            if native.vector != 14 { native.cr2 = 0 }
            return
        }
        let end = input.rip &+ UInt64(generated.instruction.length) &+ 1
        if generated.usesBreakpoint {
            if native.vector == 3, native.rip == end {
                native.vector = completed
                native.rip = native.rip &- 1
            }
        } else {
            if native.vector == 1 { native.vector = completed }
            native.rflags &= ~trapFlag
        }
        if native.vector == completed { native.error = 0 }
        if native.vector != 14 { native.cr2 = 0 }
    }

    /// Where the outcomes differ: nothing, or a line for each difference.
    package func differences(native: CaseRecord, software: CaseRecord, of generated: GeneratedCase) -> [String] {
        if isSame(native, software, generated) { return [] }
        let bothFault = native.vector < Self.completed && software.vector < Self.completed
        if faultOrderIsOpen, bothFault, native.rip == software.rip, !generated.isSequence || native.vector != software.vector { return [] }
        // Bytes that the mask leaves out may fault or not. Source: [SDM2 MASKMOVDQU].
        if generated.row.mnemonic == .maskmovq || generated.row.mnemonic == .maskmovdqu, native.vector == 14 || native.vector == 13 { return [] }
        if memoryFaultIsOpen, [12, 13, 14, 17].contains(software.vector) { return [] }
        if alignmentIsOpen, native.vector == 17 || software.vector == 17 { return [] }
        // Past the end of a 4-GiB segment the limit may be seen or not. Source: [SDM3 §6.3].
        if bothFault, generated.instruction.mode != .bits64, native.rip == software.rip, native.vector == 12 || native.vector == 13,
            software.vector == 17 || software.vector == 14 && software.cr2 >= 0xFFFF_FE00
        {
            return []
        }
        let isPartial = faultIsPartial && bothFault
        var lines: [String] = []
        func line(_ what: String, _ one: UInt64, _ other: UInt64) {
            if one != other { lines.append("\(what): native \(hexadecimal(one)), software \(hexadecimal(other))") }
        }
        line("exception", native.vector, software.vector)
        line("error code", comparableError(native), comparableError(software))
        line("CR2", native.cr2, software.cr2)
        line("RIP", native.rip, software.rip)
        line("CS", native.cs, software.cs)
        let mask = flagMask(generated)
        line("RFLAGS (of \(hexadecimal(mask)))", native.rflags & mask, software.rflags & mask)
        for number in 0..<16 where number != undefinedRegister && !isPartial {
            // A switch to 32-bit code leaves the upper halves undefined.
            let mask: UInt64 = native.cs == 0x23 && generated.instruction.mode == .bits64 ? 0xFFFF_FFFF : .max
            line(Register(.general64, UInt8(number)).description.uppercased(), native[general: number] & mask, software[general: number] & mask)
        }
        line("FS base", native.fsBase, software.fsBase)
        line("GS base", native.gsBase, software.gsBase)
        for offset in stride(from: 0, to: 416, by: 2) where !(6..<24).contains(offset) && !(28..<32).contains(offset) {
            line("FXSAVE[\(offset)]", UInt64(native.loadFX(offset, as: UInt16.self)), UInt64(software.loadFX(offset, as: UInt16.self)))
        }
        let differing = ignoresMemory || isPartial ? [] : Self.differingLines(native, software)
        for offset in differing.flatMap({ $0..<$0 &+ 64 }) {
            let address = offset < 8192 ? Sandbox.data &+ UInt64(offset) : Sandbox.stack &+ UInt64(offset &- 8192)
            if ignoredMemory.contains(where: { $0.contains(address) }) { continue }
            if let one = native.peek(address), let other = software.peek(address), one != other {
                line("byte at \(hexadecimal(address))", UInt64(one), UInt64(other))
            }
            if lines.count > 24 { break }
        }
        return lines
    }

    /// Offsets of the 64-byte lines of memory that are not the same.
    private static func differingLines(_ one: CaseRecord, _ other: CaseRecord) -> [Int] {
        stride(from: 0, to: 3 &* 4096, by: 64).filter { unsafe !(one.memory + $0).equals(other.memory + $0, count: 64) }
    }

    private func flagMask(_ generated: GeneratedCase) -> UInt64 {
        generated.usesBreakpoint ? flags : flags & ~Self.trapFlag
    }

    /// The kernel sets the P bit for addresses of its own half, whatever the tables say.
    private func comparableError(_ record: CaseRecord) -> UInt64 {
        record.vector == 14 && record.cr2 >= 0x7FFF_FFFF_F000 ? record.error | 1 : record.error
    }

    /// The common case, in few steps.
    private func isSame(_ native: CaseRecord, _ software: CaseRecord, _ generated: GeneratedCase) -> Bool {
        let mask = flagMask(generated)
        guard native.vector == software.vector, comparableError(native) == comparableError(software), native.cr2 == software.cr2,
            native.rip == software.rip, native.cs == software.cs, native.rflags & mask == software.rflags & mask,
            native.fsBase == software.fsBase, native.gsBase == software.gsBase
        else { return false }
        for number in 0..<16 where number != undefinedRegister && native[general: number] != software[general: number] { return false }
        for offset in stride(from: 0, to: 416, by: 8) where offset != 8 && offset != 16 {
            var difference: UInt64 = native.loadFX(offset) ^ software.loadFX(offset)
            if offset == 0 { difference &= 0xFFFF_FFFF_FFFF }
            if offset == 24 { difference &= 0xFFFF_FFFF }
            if difference != 0 { return false }
        }
        if ignoresMemory { return true }
        return unsafe native.memory.equals(software.memory, count: 3 &* 4096)
    }
}

extension UnsafeMutableRawPointer {
    fileprivate func equals(_ other: UnsafeMutableRawPointer, count: Int) -> Bool { unsafe memcmp(self, other, count) == 0 }
}

func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
