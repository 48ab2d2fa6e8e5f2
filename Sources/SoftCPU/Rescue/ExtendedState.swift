internal import CHost
internal import VMCore
internal import X86

/// XSAVE and its kin, by the guest's own CPUID and XCR0.
///
/// x87 and SSE are in the processor's image, the other components in the area that the engine gave. Components of IA32_XSS
/// are in neither: an instruction that asks for one is refused.
///
/// Source: [SDM1 §13.6 to §13.13], [SDM2 XSAVE, XSAVEC, XSAVEOPT, XSAVES, XRSTOR, XRSTORS, XGETBV, XSETBV].
extension CPU {
    func executeExtendedState(_ i: Insn, _ rescue: RescueContext) throws(Fault) {
        guard s.cr4 & CR4.osxsave != 0 else { throw .invalidOpcode }
        switch i.f.mnemonic {
        case .xgetbv: return try executeGetControl(rescue)
        case .xsetbv: return try executeSetControl(rescue)
        default: break
        }
        if s.cr0 & CR0.ts != 0 { throw .deviceNotAvailable }
        let mask = self[2] &<< 32 | self[0] & 0xFFFF_FFFF
        switch i.f.mnemonic {
        case .xsave, .xsave64: try save(i, rescue, rescue.xcr0 & mask, .standard)
        case .xsaveopt, .xsaveopt64: try save(i, rescue, rescue.xcr0 & mask, .optimised)
        case .xsavec, .xsavec64: try save(i, rescue, rescue.xcr0 & mask, .compacted)
        case .xsaves, .xsaves64: try save(i, rescue, (rescue.xcr0 | supervisorComponents(rescue)) & mask, .compacted)
        case .xrstor, .xrstor64: try restore(i, rescue, rescue.xcr0, mask, isSupervisor: false)
        case .xrstors, .xrstors64:
            try restore(i, rescue, rescue.xcr0 | supervisorComponents(rescue), mask, isSupervisor: true)
        default: throw .invalidOpcode
        }
    }

    /// IA32_XSS.
    private func supervisorComponents(_ rescue: RescueContext) -> UInt64 { rescue.rescued?.readMSR(RescueContext.xss) ?? 0 }

    private enum SaveForm { case standard, optimised, compacted }

    // MARK: XCR0

    private func executeGetControl(_ rescue: RescueContext) throws(Fault) {
        let value: UInt64
        switch self[1] & 0xFFFF_FFFF {
        case 0: value = rescue.xcr0
        case 1 where rescue.features.hasXGETBV1: value = rescue.xcr0 & (rescue.inUse & ~3 | floatingPointInUse)
        default: throw .protection
        }
        self[0] = value & 0xFFFF_FFFF
        self[2] = value &>> 32
    }

    /// Source: [SDM1 §13.3]: which bits may be set together.
    private func executeSetControl(_ rescue: RescueContext) throws(Fault) {
        let value = self[2] &<< 32 | self[0] & 0xFFFF_FFFF
        func agree(_ bits: UInt64) -> Bool { value & bits == 0 || value & bits == bits }
        guard self[1] & 0xFFFF_FFFF == 0, value & 1 != 0, value & ~rescue.layout.userComponents == 0,
            value & 4 == 0 || value & 2 != 0, agree(0x18), agree(0xE0), value & 0xE0 == 0 || value & 4 != 0, agree(0x6_0000)
        else { throw .protection }
        rescue.xcr0 = value
        rescue.extendedChanged = true
    }

    // MARK: In use

    /// XINUSE's bits 0 and 1: whether x87 and SSE differ from their initial state.
    var floatingPointInUse: UInt64 {
        var bits: UInt64 = 0
        func any(_ range: Range<UInt>) -> Bool {
            range.contains { Host.load(UInt8.self, fx &+ $0) != 0 }
        }
        if Host.load(UInt16.self, fx) != FXSaveImage.fcwReset || any(2..<24) || any(32..<160) { bits |= ExtendedLayout.x87 }
        if any(160..<416) { bits |= ExtendedLayout.sse }
        return bits
    }

    func initialiseX87() {
        chost_store_bytes(fx, 0, 24)
        chost_store_bytes(fx &+ UInt(FXSaveImage.st), 0, 128)
        Host.store(FXSaveImage.fcwReset, fx)
    }

    /// XMM registers: all, or those that the mode has.
    func initialiseVectors(all: Bool = false) { chost_store_bytes(fx &+ UInt(FXSaveImage.xmm), 0, all || is64 ? 256 : 128) }

    // MARK: Saving

    private func save(_ i: Insn, _ rescue: RescueContext, _ wanted: UInt64, _ form: SaveForm) throws(Fault) {
        try checkComponents(i, wanted, rescue)
        let place = form == .compacted ? rescue.layout.compacted(wanted) : rescue.layout.standard(wanted)
        let at = try areaAddress(i, place.size, write: true)
        try probeArea(at, place.size)
        let inUse = (rescue.inUse & ~3 | floatingPointInUse) & rescue.xcr0
        var present = inUse & wanted
        var stored = form == .standard ? wanted : present
        // MXCSR has no component of its own. Source: [SDM1 §13.10].
        let mxcsr = Host.load(UInt32.self, fx &+ UInt(FXSaveImage.mxcsr))
        if form == .compacted, wanted & ExtendedLayout.sse != 0, mxcsr != FXSaveImage.mxcsrReset {
            present |= ExtendedLayout.sse
            stored |= ExtendedLayout.sse
        }

        if stored & ExtendedLayout.x87 != 0 { try saveX87(at, isWide: isWide(i)) }
        let savesControl = form == .compacted ? stored & ExtendedLayout.sse != 0 : wanted & (ExtendedLayout.sse | ExtendedLayout.avx) != 0
        if savesControl {
            try storeWord(at &+ 24, UInt64(mxcsr) | UInt64(FXSaveImage.mxcsrMaskValue) &<< 32)
        }
        if stored & ExtendedLayout.sse != 0 { try copyOut(imageAt: FXSaveImage.xmm, at &+ 160, is64 ? 256 : 128) }
        for number in ExtendedLayout.numbers(stored) {
            let component = rescue.layout.components[number]
            // Outside 64-bit mode only the first eight registers' upper halves.
            let size = number == 2 && !is64 ? component.size / 2 : component.size
            try copyOut(rescue.extended, component.offset, at &+ UInt64(place.offsets[number]), size)
        }
        if form == .compacted {
            try storeWord(at &+ 512, present)
            try storeWord(at &+ 520, wanted | ExtendedLayout.isCompacted)
        } else {
            let old = try load(wrapped(at &+ 512), 8, user: isUser)
            try storeWord(at &+ 512, old & ~wanted | present)
        }
    }

    /// Whether FIP and FDP are 64 bits: REX.W, which makes a mnemonic of its own.
    private func isWide(_ i: Insn) -> Bool {
        switch i.f.mnemonic {
        case .xsave64, .xsaveopt64, .xsavec64, .xsaves64, .xrstor64, .xrstors64: true
        default: false
        }
    }

    private func saveX87(_ at: UInt64, isWide: Bool) throws(Fault) {
        func word(_ offset: Int) -> UInt64 { Host.load(UInt64.self, fx &+ UInt(bitPattern: offset)) }
        // FTW's upper byte is reserved, FCS and FDS are zero, as on processors that have deprecated them.
        let pointerMask: UInt64 = isWide ? ~0 : 0xFFFF_FFFF
        try storeWord(at, word(0) & 0xFFFF_00FF_FFFF_FFFF)
        try storeWord(at &+ 8, word(FXSaveImage.fip) & pointerMask)
        try storeWord(at &+ 16, word(FXSaveImage.fdp) & pointerMask)
        try copyOut(imageAt: FXSaveImage.st, at &+ 32, 128)
    }

    private func storeWord(_ at: UInt64, _ value: UInt64) throws(Fault) { try store(wrapped(at), 8, value, user: isUser) }

    private func copyOut(imageAt offset: Int, _ at: UInt64, _ count: Int) throws(Fault) {
        for part in stride(from: 0, to: count, by: 8) {
            try storeWord(at &+ UInt64(part), Host.load(UInt64.self, fx &+ UInt(bitPattern: offset &+ part)))
        }
    }

    private func copyOut(_ area: [UInt8], _ offset: Int, _ at: UInt64, _ count: Int) throws(Fault) {
        for part in stride(from: 0, to: count, by: 8) {
            let size = min(8, count &- part)
            if size == 8 {
                try storeWord(at &+ UInt64(part), ExtendedLayout.word(area, offset &+ part))
            } else {
                for byte in part..<count {
                    try store(wrapped(at &+ UInt64(byte)), 1, UInt64(area[offset &+ byte]), user: isUser)
                }
            }
        }
    }

    // MARK: Restoring

    private func restore(
        _ i: Insn, _ rescue: RescueContext, _ allowed: UInt64, _ mask: UInt64, isSupervisor: Bool
    ) throws(Fault) {
        let wanted = allowed & mask
        try checkComponents(i, wanted, rescue)
        // The header first: it says how large the rest is.
        let start = try areaAddress(i, ExtendedLayout.headerEnd, write: false)
        var header: [UInt64] = []
        for part in 0..<8 as Range<UInt64> { header.append(try load(wrapped(start &+ 512 &+ part &* 8), 8, user: isUser)) }
        let present = header[0]
        let compaction = header[1]
        let isCompacted = compaction & ExtendedLayout.isCompacted != 0
        let place: (offsets: [Int], size: Int)
        if isCompacted {
            let components = compaction & ~ExtendedLayout.isCompacted
            guard rescue.features.contains(.xsavec), components & ~allowed == 0, present & ~components == 0,
                header[2...].allSatisfy({ $0 == 0 })
            else { throw .protection }
            place = rescue.layout.compacted(components)
        } else {
            guard !isSupervisor, present & ~rescue.xcr0 == 0, compaction == 0, header[2] == 0 else { throw .protection }
            place = rescue.layout.standard(present)
        }
        let loaded = wanted & present

        // Everything is read, and what can fault has, before a register changes.
        let at = try areaAddress(i, loaded & ~3 == 0 ? ExtendedLayout.headerEnd : place.size, write: false)
        let legacy = try copyIn(at, 416)
        var parts: [(number: Int, bytes: [UInt8])] = []
        for number in ExtendedLayout.numbers(loaded) {
            let component = rescue.layout.components[number]
            let size = number == 2 && !is64 ? component.size / 2 : component.size
            parts.append((number, try copyIn(at &+ UInt64(place.offsets[number]), size)))
        }
        var mxcsr: UInt32?
        if isCompacted {
            if wanted & ExtendedLayout.sse != 0 {
                mxcsr = loaded & ExtendedLayout.sse != 0
                    ? UInt32(truncatingIfNeeded: ExtendedLayout.word(legacy, 24)) : FXSaveImage.mxcsrReset
            }
        } else if wanted & (ExtendedLayout.sse | ExtendedLayout.avx) != 0 {
            // In the standard form MXCSR is loaded whatever XSTATE_BV says. Source: [SDM1 §13.8.1].
            mxcsr = UInt32(truncatingIfNeeded: ExtendedLayout.word(legacy, 24))
        }
        if let mxcsr, mxcsr & ~FXSaveImage.mxcsrMaskValue != 0 { throw .protection }

        if wanted & ExtendedLayout.x87 != 0 {
            if loaded & ExtendedLayout.x87 != 0 { restoreX87(legacy, isWide: isWide(i)) } else { initialiseX87() }
        }
        if wanted & ExtendedLayout.sse != 0 {
            if loaded & ExtendedLayout.sse != 0 {
                for byte in 160..<(is64 ? 416 : 288) { Host.store(legacy[byte], fx &+ UInt(bitPattern: byte)) }
            } else {
                initialiseVectors()
            }
        }
        if let mxcsr { Host.store(mxcsr, fx &+ UInt(FXSaveImage.mxcsr)) }
        if let image = unsafe UnsafeMutableRawPointer(bitPattern: fx) { unsafe FXSaveImage.canonicalise(image) }
        for number in ExtendedLayout.numbers(wanted & ~loaded) {
            let component = rescue.layout.components[number]
            // What 32-bit code does not see stays.
            let size = number == 2 && !is64 ? component.size / 2 : component.size
            for byte in 0..<size { rescue.extended[component.offset &+ byte] = 0 }
        }
        for (number, bytes) in parts {
            let offset = rescue.layout.components[number].offset
            for (byte, value) in bytes.enumerated() { rescue.extended[offset &+ byte] = value }
        }
        var kept = wanted & ~loaded
        if !is64 { kept &= ~(ExtendedLayout.sse | ExtendedLayout.avx) }
        rescue.inUse = rescue.inUse & ~kept | loaded
        rescue.extendedChanged = true
    }

    private func restoreX87(_ legacy: [UInt8], isWide: Bool) {
        for byte in 0..<24 { Host.store(legacy[byte], fx &+ UInt(bitPattern: byte)) }
        for byte in 32..<160 { Host.store(legacy[byte], fx &+ UInt(bitPattern: byte)) }
        guard !isWide else { return }
        // 32-bit pointers, and selectors that are not kept.
        Host.store(0 as UInt32, fx &+ UInt(FXSaveImage.fip) &+ 4)
        Host.store(0 as UInt32, fx &+ UInt(FXSaveImage.fdp) &+ 4)
    }

    private func copyIn(_ at: UInt64, _ count: Int) throws(Fault) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let size = count &- done >= 8 ? 8 : 1
            let value = try load(wrapped(at &+ UInt64(done)), size, user: isUser)
            for byte in 0..<size { bytes[done &+ byte] = UInt8(truncatingIfNeeded: value &>> UInt64(byte &* 8)) }
            done &+= size
        }
        return bytes
    }

    // MARK: Areas

    /// Source: [SDM1 §13.4]: an area begins at a multiple of 64.
    private func areaAddress(_ i: Insn, _ size: Int, write: Bool) throws(Fault) -> UInt64 {
        let at = try linear(i, size, write: write)
        guard at & 63 == 0 else { throw .protection }
        return at
    }

    /// All of it could be written, before any of it is.
    private func probeArea(_ at: UInt64, _ size: Int) throws(Fault) {
        var done = 0
        while done < size {
            let part = min(bytesInPage(wrapped(at &+ UInt64(done))), size &- done)
            try probeWrite(wrapped(at &+ UInt64(done)), part, user: isUser)
            done &+= part
        }
    }

    /// Refuses components that the engine's area does not hold.
    private func checkComponents(_ i: Insn, _ wanted: UInt64, _ rescue: RescueContext) throws(Fault) {
        for number in ExtendedLayout.numbers(wanted) {
            let component = rescue.layout.components[number]
            let isThere = component.size > 0 && !component.isSupervisor && component.offset >= ExtendedLayout.headerEnd
                && component.offset &+ component.size <= rescue.extended.count
            if !isThere {
                refuse("its extended state has a component \(number) that it cannot reach")
                throw .protection
            }
        }
    }
}
