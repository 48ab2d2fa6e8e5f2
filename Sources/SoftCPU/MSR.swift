internal import VMCore

/// Model-specific registers: those a current kernel touches. All others are #GP, as on a processor that lacks them.
///
/// Source: [SDM4 §2.1] architectural MSRs.
enum MSR {
    static var tsc: UInt32 { 0x10 }
    static var apicBase: UInt32 { 0x1B }
    static var tscAdjust: UInt32 { 0x3B }
    static var specControl: UInt32 { 0x48 }
    static var predictorCommand: UInt32 { 0x49 }
    static var microcodeRevision: UInt32 { 0x8B }
    static var mtrrCapability: UInt32 { 0xFE }
    static var architectureCapabilities: UInt32 { 0x10A }
    static var miscFeatures: UInt32 { 0x140 }
    static var sysenterCS: UInt32 { 0x174 }
    static var sysenterESP: UInt32 { 0x175 }
    static var sysenterEIP: UInt32 { 0x176 }
    static var mcgCapability: UInt32 { 0x179 }
    static var mcgStatus: UInt32 { 0x17A }
    static var miscEnable: UInt32 { 0x1A0 }
    static var pat: UInt32 { 0x277 }
    static var mtrrDefault: UInt32 { 0x2FF }
    static var tscDeadline: UInt32 { 0x6E0 }
    static var efer: UInt32 { 0xC000_0080 }
    static var star: UInt32 { 0xC000_0081 }
    static var lstar: UInt32 { 0xC000_0082 }
    static var cstar: UInt32 { 0xC000_0083 }
    static var fmask: UInt32 { 0xC000_0084 }
    static var fsBase: UInt32 { 0xC000_0100 }
    static var gsBase: UInt32 { 0xC000_0101 }
    static var kernelGSBase: UInt32 { 0xC000_0102 }
    static var tscAux: UInt32 { 0xC000_0103 }

    /// Those that `state()` reports, beside the MTRRs.
    static var stateIndices: [UInt32] {
        [
            tsc, tscAdjust, specControl, sysenterCS, sysenterESP, sysenterEIP, miscEnable, pat, star, lstar, cstar, fmask,
            kernelGSBase, tscAux, mtrrDefault, tscDeadline,
        ]
    }

    /// Not vulnerable to anything: no speculation, so no mitigation is needed. Source: [SDM4] IA32_ARCH_CAPABILITIES.
    static var capabilities: UInt64 {
        let bits: [UInt64] = [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62]
        return bits.reduce(0) { $0 | 1 &<< $1 }
    }

    /// The place of a stored register: variable MTRRs 0-7 (16 words), fixed MTRRs (11), default type, SPEC_CTRL.
    static func stored(_ index: UInt32) -> UInt? {
        switch index {
        case 0x200...0x20F: UInt(index &- 0x200)
        case 0x250: 16
        case 0x258, 0x259: UInt(index &- 0x258) &+ 17
        case 0x268...0x26F: UInt(index &- 0x268) &+ 19
        case 0x2FF: 27
        case specControl: 28
        default: nil
        }
    }

    /// Whether a stored register takes a value: types of memory that there are, and no reserved bit.
    /// Source: [SDM3 §12.11.2], [SDM4] IA32_SPEC_CTRL.
    static func isStorable(_ value: UInt64, in index: UInt32) -> Bool {
        func isType(_ type: UInt64) -> Bool { type <= 6 && type != 2 && type != 3 }
        let address: UInt64 = 0xFF_FFFF_F000
        switch index {
        case specControl: return value & ~7 == 0
        case mtrrDefault: return value & ~0xCFF == 0 && isType(value & 0xFF)
        case 0x200...0x20F: return index & 1 == 0 ? value & ~(address | 0xFF) == 0 && isType(value & 0xFF) : value & ~(address | 0x800) == 0
        default: return (0..<8 as Range<UInt64>).allSatisfy { isType(value &>> ($0 &* 8) & 0xFF) }
        }
    }
}

extension CPU {
    @inline(__always) private func storedValue(_ place: UInt) -> UInt64 {
        Host.load(UInt64.self, address &+ Layout.stored &+ place &* 8)
    }

    /// - Returns: nil for #GP.
    func readMSR(_ index: UInt32) -> UInt64? {
        if let place = MSR.stored(index) { return storedValue(place) }
        switch index {
        case MSR.tsc: return timeStamp
        case MSR.tscAdjust: return s.tscAdjust
        case MSR.microcodeRevision: return 1 &<< 32
        case MSR.mtrrCapability: return 0x508  // eight variable ranges, fixed ranges, write-combining
        case MSR.architectureCapabilities: return MSR.capabilities
        case MSR.sysenterCS: return s.sysenterCS
        case MSR.sysenterESP: return s.sysenterESP
        case MSR.sysenterEIP: return s.sysenterEIP
        case MSR.mcgCapability, MSR.mcgStatus: return 0
        case MSR.miscEnable: return s.miscEnable
        case MSR.pat: return s.pat
        case MSR.efer: return s.efer
        case MSR.star: return s.star
        case MSR.lstar: return s.lstar
        case MSR.cstar: return s.cstar
        case MSR.fmask: return s.fmask
        case MSR.fsBase: return segmentBase(SegmentIndex.fs)
        case MSR.gsBase: return segmentBase(SegmentIndex.gs)
        case MSR.kernelGSBase: return s.kernelGSBase
        case MSR.tscAux: return s.tscAux
        // Platform facts that kernels ask of every processor of this family: none.
        case 0x17, 0xCE, MSR.miscFeatures, 0x1AD, 0x606, 0x64E: return 0
        case MSR.apicBase, MSR.tscDeadline, 0x800...0x8FF: return vcpu.local?.readMSR(index)
        default: return nil
        }
    }

    func setTSCOffset(_ offset: UInt64) {
        s.tscOffset = offset
        vcpu.local?.setTSCOffset(offset)
    }

    /// - Returns: false for #GP.
    func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool {
        if let place = MSR.stored(index) {
            guard MSR.isStorable(value, in: index) else { return false }
            Host.store(value, address &+ Layout.stored &+ place &* 8)
            return true
        }
        switch index {
        case MSR.tsc:
            let offset = value &- vcpu.engine.time.ticks
            // IA32_TSC_ADJUST follows what is written to the counter. Source: [SDM3 §18.17.3].
            s.tscAdjust &+= offset &- s.tscOffset
            setTSCOffset(offset)
        case MSR.tscAdjust:
            setTSCOffset(s.tscOffset &+ (value &- s.tscAdjust))
            s.tscAdjust = value
        case MSR.predictorCommand, MSR.microcodeRevision: return true
        case MSR.sysenterCS: s.sysenterCS = value
        case MSR.sysenterESP:
            guard isCanonical(value) else { return false }
            s.sysenterESP = value
        case MSR.sysenterEIP:
            guard isCanonical(value) else { return false }
            s.sysenterEIP = value
        // None of its features is there. Linux, which can read it, writes back that it uses none. Source: [SDM4] MSR_MISC_FEATURES_ENABLES.
        case MSR.mcgStatus, MSR.miscFeatures: return value == 0
        case MSR.miscEnable: s.miscEnable = value
        case MSR.pat:
            // Each byte is one of 0, 1, 4, 5, 6, 7. Source: [SDM3 §12.12.2].
            for shift in stride(from: 0 as UInt64, to: 64, by: 8) {
                let type = value &>> shift & 0xFF
                if type > 7 || type == 2 || type == 3 { return false }
            }
            s.pat = value
        case MSR.efer:
            guard value & ~EFER.allowed == 0 else { return false }
            if (value ^ s.efer) & EFER.lme != 0, s.cr0 & CR0.pg != 0 { return false }
            let new = value & ~EFER.lma | s.efer & EFER.lma
            let changed = new ^ s.efer
            s.efer = new
            if changed & EFER.nxe != 0 { flushTLB() }
        case MSR.star: s.star = value
        case MSR.lstar:
            guard isCanonical(value) else { return false }
            s.lstar = value
        case MSR.cstar:
            guard isCanonical(value) else { return false }
            s.cstar = value
        case MSR.fmask: s.fmask = value & 0xFFFF_FFFF
        case MSR.fsBase:
            guard isCanonical(value) else { return false }
            setBase(SegmentIndex.fs, value)
        case MSR.gsBase:
            guard isCanonical(value) else { return false }
            setBase(SegmentIndex.gs, value)
        case MSR.kernelGSBase:
            guard isCanonical(value) else { return false }
            s.kernelGSBase = value
        case MSR.tscAux: s.tscAux = value & 0xFFFF_FFFF
        case MSR.apicBase, MSR.tscDeadline, 0x800...0x8FF:
            guard let local = vcpu.local, local.writeMSR(index, value) else { return false }
            refreshAPICPage()
        default: return false
        }
        return true
    }

    func executeReadMSR() throws(Fault) {
        s.exitStatistics.msrs &+= 1
        guard let value = s.rescuing != 0 ? readRescuedMSR(UInt32(truncatingIfNeeded: self[1])) : readMSR(UInt32(truncatingIfNeeded: self[1])) else { throw .protection }
        self[0] = value & 0xFFFF_FFFF
        self[2] = value &>> 32
    }

    func executeWriteMSR() throws(Fault) {
        s.exitStatistics.msrs &+= 1
        let value = self[0] & 0xFFFF_FFFF | self[2] &<< 32
        if s.rescuing != 0 {
            guard writeRescuedMSR(UInt32(truncatingIfNeeded: self[1]), value) else { throw .protection }
            return
        }
        guard writeMSR(UInt32(truncatingIfNeeded: self[1]), value) else { throw .protection }
    }

    /// Where the local APIC's registers are: a page of it was RAM's or nobody's before, so translations go.
    func refreshAPICPage() {
        let page = vcpu.local?.page ?? ~0
        if page != s.apicPage {
            s.apicPage = page
            flushTLB()
        }
    }
}
