internal import VMCore
internal import X86

/// The parts of a rescued vCPU's state that are fetched only for instructions that need them.
extension CPU {
    /// Fetches what an instruction reads beside the state that the rescue began with.
    /// - Returns: false where it cannot be had; then it is refused.
    func loadForRescue(_ instruction: Instruction, _ rescue: RescueContext) -> Bool {
        let row = instruction.row
        let needsExtended: Bool
        switch row.feature {
        case .xsave, .xsaveopt, .xsavec, .xsaves: needsExtended = true
        default: needsExtended = HostOperations.covers(row) && instruction.mnemonic != .crc32 || row.map.isVEX && row.unit != .integer
        }
        if needsExtended, !loadExtendedState(rescue) { return false }
        func fetch(_ index: UInt32) -> UInt64 { rescue.rescued?.readMSR(index) ?? 0 }
        switch instruction.mnemonic {
        case .syscall:
            s.star = fetch(MSR.star)
            s.lstar = fetch(MSR.lstar)
            s.cstar = fetch(MSR.cstar)
            s.fmask = fetch(MSR.fmask)
        case .sysret, .sysretq: s.star = fetch(MSR.star)
        case .sysenter, .sysexit, .sysexitq:
            s.sysenterCS = fetch(MSR.sysenterCS)
            s.sysenterESP = fetch(MSR.sysenterESP)
            s.sysenterEIP = fetch(MSR.sysenterEIP)
        case .swapgs:
            s.kernelGSBase = fetch(MSR.kernelGSBase)
            rescue.kernelGSBase = s.kernelGSBase
        case .rdtsc, .rdtscp, .rdpid:
            if instruction.mnemonic != .rdpid { s.tscOffset = fetch(MSR.tsc) &- vcpu.engine.time.ticks }
            if instruction.mnemonic != .rdtsc { s.tscAux = fetch(MSR.tscAux) }
        default: break
        }
        return true
    }

    // MARK: Model-specific registers

    /// RDMSR: the segments' bases are part of the state, the rest is the engine's.
    func readRescuedMSR(_ index: UInt32) -> UInt64? {
        switch index {
        case MSR.fsBase: segmentBase(SegmentIndex.fs)
        case MSR.gsBase: segmentBase(SegmentIndex.gs)
        case MSR.efer: s.efer
        default: vcpu.rescue?.rescued?.readMSR(index)
        }
    }

    /// WRMSR. What would change how the state is to be read is refused.
    func writeRescuedMSR(_ index: UInt32, _ value: UInt64) -> Bool {
        switch index {
        case MSR.fsBase, MSR.gsBase:
            guard isCanonical(value) else { return false }
            setBase(index == MSR.fsBase ? SegmentIndex.fs : SegmentIndex.gs, value)
            return true
        case MSR.efer, MSR.apicBase:
            refuse("it does not write MSR 0x\(String(index, radix: 16))")
            return true
        default: return vcpu.rescue?.rescued?.writeMSR(index, value) ?? false
        }
    }

    // MARK: Extended state

    /// Fetches it, once a rescue, and takes x87 and SSE into the processor's image.
    /// - Returns: false where it cannot be had; then the instruction is refused.
    func loadExtendedState(_ rescue: RescueContext) -> Bool {
        if !rescue.extended.isEmpty { return true }
        guard let known = try? rescue.rescued?.rescuedExtendedState(), known.area.count >= ExtendedLayout.headerEnd else {
            refuse("the vCPU's extended registers are not known")
            return false
        }
        rescue.extended = known.area
        rescue.xcr0 = known.xcr0
        rescue.inUse = ExtendedLayout.word(known.area, ExtendedLayout.stateBits)
        for byte in 0..<FXSaveImage.byteCount { Host.store(known.area[byte], fx &+ UInt(bitPattern: byte)) }
        // A component whose bit is clear is in its initial state. Source: [SDM1 §13.6].
        if rescue.inUse & ExtendedLayout.x87 == 0 { initialiseX87() }
        if rescue.inUse & ExtendedLayout.sse == 0 { initialiseVectors(all: true) }
        if rescue.inUse & (ExtendedLayout.sse | ExtendedLayout.avx) == 0 {
            Host.store(FXSaveImage.mxcsrReset, fx &+ UInt(FXSaveImage.mxcsr))
        }
        if let image = unsafe UnsafeMutableRawPointer(bitPattern: fx) { unsafe FXSaveImage.canonicalise(image) }
        rescue.imageBefore = imageBytes()
        return true
    }

    /// What of the image is state: all but MXCSR_MASK, to where FXSAVE stops.
    fileprivate func imageBytes() -> [UInt8] {
        (0..<FXSaveImage.end).map { byte in
            byte >= FXSaveImage.mxcsrMask && byte < FXSaveImage.st ? 0 : Host.load(UInt8.self, fx &+ UInt(bitPattern: byte))
        }
    }
}

extension RescueContext {
    /// The area to give back; nil where nothing of it has changed.
    func changedExtended(_ cpu: CPU) -> [UInt8]? {
        guard !extended.isEmpty else { return nil }
        let image = cpu.imageBytes()
        guard image != imageBefore || extendedChanged else { return nil }
        var area = extended
        for byte in 0..<FXSaveImage.end where byte < FXSaveImage.mxcsrMask || byte >= FXSaveImage.st { area[byte] = image[byte] }
        // A component that is not in its initial state must be said to be in use, or it would be taken for initial.
        var bits = inUse | cpu.floatingPointInUse
        if Host.load(UInt32.self, cpu.fx &+ UInt(FXSaveImage.mxcsr)) != FXSaveImage.mxcsrReset { bits |= ExtendedLayout.sse }
        ExtendedLayout.setWord(&area, ExtendedLayout.stateBits, bits)
        return area
    }
}
