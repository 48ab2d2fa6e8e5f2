internal import X86

/// x87, MMX and SSE instructions of the general path: who may execute them, and their memory operands. What they compute
/// is the host's own unit's affair: see `FloatingPoint/HostOperation.swift`.
extension CPU {
    func executeOther(_ i: Insn) throws(Fault) -> Flow {
        let operation = Host.load(HostOperation.self, i.address &+ Insn.hostOffset)
        guard operation.entry != 0 else { throw .invalidOpcode }
        try checkUnit(i)
        // A pending #MF comes before anything that the memory operand may raise. Source: [SDM3 §6.9, table 6-2].
        if operation.unit != .plain, operation.access != .none, Host.load(UInt16.self, fx &+ 2) & 0x80 != 0 { throw .floatingPoint }
        switch operation.access {
        case .none: try finish(i, operation, memory: 0, at: 0)
        case .read: try executeFromMemory(i, operation)
        case .write: try executeToMemory(i, operation)
        case .maskedWrite: try executeMasked(i, operation)
        }
        return .next
    }

    /// #UD and #NM by CR0.EM, MP, TS and CR4.OSFXSR. Source: [SDM3 §2.5, §13.1, tables 13-1 and 13-2].
    private func checkUnit(_ i: Insn) throws(Fault) {
        let cr0 = s.cr0
        switch i.f.mnemonic {
        case .crc32: return
        case .fwait:
            if cr0 & CR0.mp != 0, cr0 & CR0.ts != 0 { throw .deviceNotAvailable }
            return
        case .fxsave, .fxsave64, .fxrstor, .fxrstor64:
            if cr0 & (CR0.em | CR0.ts) != 0 { throw .deviceNotAvailable }
            return
        default: break
        }
        switch i.f.unit {
        case ExecutionUnit.x87.rawValue:
            if cr0 & (CR0.em | CR0.ts) != 0 { throw .deviceNotAvailable }
        case ExecutionUnit.mmx.rawValue:
            if cr0 & CR0.em != 0 { throw .invalidOpcode }
            if cr0 & CR0.ts != 0 { throw .deviceNotAvailable }
        default:
            if cr0 & CR0.em != 0 || s.cr4 & CR4.osfxsr == 0 { throw .invalidOpcode }
            if cr0 & CR0.ts != 0 { throw .deviceNotAvailable }
        }
    }

    /// Runs it and raises what it raises.
    /// - Returns: whether the operand buffer is to be stored.
    @discardableResult
    private func finish(
        _ i: Insn, _ operation: HostOperation, memory: UInt, at linear: UInt64
    ) throws(Fault) -> HostOperation.Outcome {
        let outcome: HostOperation.Outcome
        if operation.unit == .plain, !operation.readsFlags {
            outcome = operation.runPlain(image: fx, general: address, memory: memory)
        } else {
            let real = isReal
            let context = HostOperation.Context(
                flags: operation.readsFlags ? UInt32(truncatingIfNeeded: rflags) : 0, realAddress: real)
            let instruction = real ? (segmentBase(SegmentIndex.cs) &+ s.rip) & 0xFFFF_FFFF : s.rip
            let data = real ? linear : operation.memorySize != 0 ? offset(i) : 0
            outcome = operation.run(
                image: fx, general: address, memory: memory, context, instructionPointer: instruction, dataPointer: data)
        }
        if !outcome.isDone {
            if outcome == .simdException { throw s.cr4 & CR4.osxmmexcpt != 0 ? .simd : .invalidOpcode }
            // Without CR0.NE a processor asserts FERR#, which no machine of ours wires: the exception is the next best.
            if outcome == .x87Exception { throw .floatingPoint }
            throw .protection
        }
        if operation.writesFlags { setArithmeticFlags(UInt64(outcome.flags)) }
        return outcome
    }

    private func operandAddress(_ i: Insn, _ operation: HostOperation, write: Bool) throws(Fault) -> UInt64 {
        let at = try linear(i, Int(operation.memorySize), write: write)
        // FXSAVE and FXRSTOR need 16 bytes' alignment too.
        if operation.requiresAlignment || operation.memorySize == 512, at & 15 != 0 { throw .protection }
        // Their area is 512 bytes, though the last 96 (224 outside 64-bit mode) are neither read nor written.
        // Source: [SDM2 FXSAVE].
        switch i.f.mnemonic {
        case .fxsave, .fxsave64: try probeWrite(at, FXSaveImage.byteCount, user: isUser)
        case .fxrstor, .fxrstor64: _ = try load(wrapped(at &+ 504), 8, user: isUser)
        default: break
        }
        return at
    }

    /// The host address of a whole operand in one page that the TLB knows; 0 otherwise.
    @inline(__always) private func fastRange(_ linear: UInt64, _ size: UInt64, write: Bool) -> UInt {
        let entry = s.tlb &+ TLB.offset(linear)
        guard (linear &+ (size &- 1)) & TLB.pageMask == Host.load(UInt64.self, entry &+ (write ? 8 : 0)) else { return 0 }
        return UInt(truncatingIfNeeded: linear &+ Host.load(UInt64.self, entry &+ 24))
    }

    private func executeFromMemory(_ i: Insn, _ operation: HostOperation) throws(Fault) {
        let size = UInt64(operation.memorySize)
        let at = try operandAddress(i, operation, write: false)
        let host = fastRange(at, size, write: false)
        if host != 0 {
            try finish(i, operation, memory: host, at: at)
            return
        }
        try loadOperand(at, size)
        try finish(i, operation, memory: address &+ Layout.operand, at: at)
    }

    private func executeToMemory(_ i: Insn, _ operation: HostOperation) throws(Fault) {
        let size = UInt64(operation.memorySize)
        let at = try operandAddress(i, operation, write: true)
        let buffer = address &+ Layout.operand
        let host = fastRange(at, size, write: true)
        if host != 0, operation.unit == .plain {
            try finish(i, operation, memory: host, at: at)
            return
        }
        try probeWrite(at, Int(operation.memorySize), user: isUser)
        // FXSAVE leaves a part of its area as it is.
        if size == 512 { try loadOperand(at, size) }
        let outcome = try finish(i, operation, memory: buffer, at: at)
        guard outcome.storesMemory else { return }
        var done: UInt64 = 0
        while done < size {
            let part = CPU.part(of: size, done)
            try store(
                wrapped(at &+ done), Int(part), readHost(buffer &+ UInt(done), Int(part)), user: isUser)
            done &+= part
        }
    }

    /// How many bytes go next: no more than the operand is aligned to, so that no part raises what the whole does not.
    @inline(__always) private static func part(of size: UInt64, _ done: UInt64) -> UInt64 {
        let unit = UInt64(truncatingIfNeeded: alignmentUnit(Int(truncatingIfNeeded: size)))
        let left = size &- done
        return left >= 8 && unit >= 8 ? 8 : left >= 4 && unit >= 4 ? 4 : left >= 2 ? 2 : 1
    }

    private func loadOperand(_ at: UInt64, _ size: UInt64) throws(Fault) {
        let buffer = address &+ Layout.operand
        var done: UInt64 = 0
        while done < size {
            let part = CPU.part(of: size, done)
            let value = try load(wrapped(at &+ done), Int(part), user: isUser)
            switch part {
            case 8: Host.store(value, buffer &+ UInt(done))
            case 4: Host.store(UInt32(truncatingIfNeeded: value), buffer &+ UInt(done))
            case 2: Host.store(UInt16(truncatingIfNeeded: value), buffer &+ UInt(done))
            default: Host.store(UInt8(truncatingIfNeeded: value), buffer &+ UInt(done))
            }
            done &+= part
        }
    }

    /// MASKMOVQ and MASKMOVDQU: the bytes that the mask selects, to DS:rDI.
    private func executeMasked(_ i: Insn, _ operation: HostOperation) throws(Fault) {
        let mask = mask(Int(i.f.addressSize))
        let outcome = try finish(i, operation, memory: 0, at: 0)
        let bytes = outcome.byteMask
        let size = UInt64(operation.memorySize)
        // All or nothing: each byte is seen to be writable before one is written.
        for byte in 0..<size where bytes &>> UInt16(byte) & 1 != 0 {
            try probeWrite(
                linear(Int(i.f.segment), (self[7] &+ byte) & mask, 1, write: true), 1, user: isUser)
        }
        let source = fx &+ UInt(operation.destination.offset)
        for byte in 0..<size where bytes &>> UInt16(byte) & 1 != 0 {
            let at = try linear(Int(i.f.segment), (self[7] &+ byte) & mask, 1, write: true)
            try store(at, 1, UInt64(Host.load(UInt8.self, source &+ UInt(byte))), user: isUser)
        }
    }
}
