internal import VMCore
internal import X86

/// Instructions that the interpreter offers no guest of its own: XSAVE's kin are a file apart.
extension CPU {
    func executeForRescue(_ i: Insn) throws(Fault) -> Flow {
        guard let rescue = vcpu.rescue else { throw .invalidOpcode }
        switch i.f.mnemonic {
        case .stac: s.flags |= RFLAGS.ac
        case .clac: s.flags &= ~RFLAGS.ac
        // Caches are the host's, and coherent.
        case .wbnoinvd: return .next
        case .clflushopt, .clwb: _ = try load(linear(i, 1, write: false), 1, user: isUser)
        case .clzero: try executeClearLine()
        case .invpcid: try executeInvalidate(i, rescue)
        default: try executeExtendedState(i, rescue)
        }
        return .end
    }

    /// CLZERO: the 64 bytes around rAX. Source: [APM3 CLZERO].
    private func executeClearLine() throws(Fault) {
        let start = (is64 ? self[0] : self[0] & 0xFFFF_FFFF) & ~63
        let at = try linear(SegmentIndex.ds, start, 64, write: true)
        try probeWrite(at, 64, user: isUser)
        for part in 0..<8 as Range<UInt64> { try store(wrapped(at &+ part &* 8), 8, 0, user: isUser) }
    }

    /// INVPCID: more may be dropped than is asked for. Source: [SDM2 INVPCID].
    private func executeInvalidate(_ i: Insn, _ rescue: RescueContext) throws(Fault) {
        let kind = readRegister(i.register(0))
        let at = try linear(i, 16, write: false)
        let identifier = try load(at, 8, user: isUser)
        let target = try load(wrapped(at &+ 8), 8, user: isUser)
        guard kind <= 3, identifier &>> 12 == 0 || kind > 1 else { throw .protection }
        if kind == 0, !isCanonical(target) { throw .protection }
        if kind <= 1, s.cr4 & CR4.pcide == 0, identifier != 0 { throw .protection }
        rescue.dropsTranslations = true
    }
}
