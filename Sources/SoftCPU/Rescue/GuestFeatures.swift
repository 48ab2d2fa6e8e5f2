internal import VMCore
internal import X86

/// What CPUID has told a guest that it may use: by that, not by what the interpreter offers its own guests, an instruction
/// of the guest executes or is #UD.
struct GuestFeatures {
    private var bits: UInt64 = 0
    /// Instructions that the decoder's tables lack, so that "undefined" is no answer where the guest has them.
    private(set) var hasEVEX = false
    private(set) var hasMaskOrTile = false
    private(set) var hasXOP = false
    private(set) var has3DNow = false
    private(set) var hasOther = false
    private(set) var hasXGETBV1 = false

    /// Source: [SDM2 CPUID], [APM3 §E].
    init(_ cpuid: (_ leaf: UInt32, _ subleaf: UInt32) -> RescueSetting.Answer) {
        let one = cpuid(1, 0)
        let seven = cpuid(7, 0)
        let save = cpuid(0xD, 1)
        let extended = cpuid(0x8000_0001, 0)
        let eight = cpuid(0x8000_0008, 0)
        func has(_ word: UInt32, _ bit: UInt32) -> Bool { word &>> bit & 1 != 0 }
        let byBit: [(UInt32, [(Feature, UInt32)])] = [
            (one.ecx, [
                (.sse3, 0), (.pclmulqdq, 1), (.monitor, 3), (.vmx, 5), (.ssse3, 9), (.fma, 12), (.cx16, 13), (.sse41, 19),
                (.sse42, 20), (.movbe, 22), (.popcnt, 23), (.aes, 25), (.xsave, 26), (.avx, 28), (.f16c, 29), (.rdrand, 30),
            ]),
            (one.edx, [
                (.x87, 0), (.cx8, 8), (.sep, 11), (.cmov, 15), (.clflush, 19), (.mmx, 23), (.fxsr, 24), (.sse, 25), (.sse2, 26),
            ]),
            (seven.ebx, [
                (.fsgsbase, 0), (.bmi1, 3), (.avx2, 5), (.bmi2, 8), (.invpcid, 10), (.rdseed, 18), (.adx, 19), (.smap, 20),
                (.clflushopt, 23), (.clwb, 24), (.sha, 29),
            ]),
            (seven.ecx, [(.pku, 3), (.gfni, 8), (.vaes, 9), (.vpclmulqdq, 10), (.rdpid, 22)]),
            (save.eax, [(.xsaveopt, 0), (.xsavec, 1), (.xsaves, 3)]),
            (extended.ecx, [(.svm, 2), (.lzcnt, 5), (.sse4a, 6), (.monitorx, 29)]),
            (extended.edx, [(.syscall, 11), (.rdtscp, 27)]),
            (eight.ebx, [(.clzero, 0), (.rdpru, 4), (.wbnoinvd, 9)]),
        ]
        for (word, features) in byBit {
            for (feature, bit) in features where has(word, bit) { insert(feature) }
        }
        // Hints that do nothing where they are not known, and what every guest here has.
        for feature in [.base, .lahf, .prefetchw] as [Feature] { insert(feature) }
        if contains(.x87), contains(.cmov) { insert(.fcmov) }
        for (feature, both) in [
            (.aesVEX, .aes), (.pclmulqdqVEX, .pclmulqdq), (.gfniVEX, .gfni),
        ] as [(Feature, Feature)] where contains(both) && contains(.avx) { insert(feature) }

        hasXGETBV1 = has(save.eax, 2)
        hasEVEX = has(seven.ebx, 16)
        hasMaskOrTile = hasEVEX || has(seven.edx, 24)
        hasXOP = has(extended.ecx, 11) || has(extended.ecx, 15) || has(extended.ecx, 16) || has(extended.ecx, 21)
        has3DNow = has(extended.edx, 31)
        // SGX, RTM, MPX; WAITPKG, CET_SS, Key Locker, CLDEMOTE, MOVDIRI, MOVDIR64B, ENQCMD; UINTR, SERIALIZE, PCONFIG, CET_IBT.
        hasOther = [2, 11, 14].contains { has(seven.ebx, $0) } || [5, 7, 23, 25, 27, 28, 29].contains { has(seven.ecx, $0) }
            || [5, 14, 18, 20].contains { has(seven.edx, $0) }
    }

    private mutating func insert(_ feature: Feature) { bits |= 1 &<< UInt64(feature.rawValue) }

    func contains(_ feature: Feature) -> Bool { bits &>> UInt64(feature.rawValue) & 1 != 0 }
}

extension CPU {
    /// What the interpreter executes for a rescue, beside what it offers its own guests.
    private static func canRescue(_ row: RowID) -> Bool {
        if has(row.feature) { return true }
        switch row.feature {
        case .xsave, .xsaveopt, .xsavec, .xsaves, .smap, .invpcid, .wbnoinvd, .clflushopt, .clwb, .clzero: return true
        // On the host's own unit; the guest has them, so the host does.
        case .aes, .pclmulqdq, .sha, .gfni, .sse4a: return HostOperations.covers(row)
        default: return false
        }
    }

    /// What only the engine can do: its own controllers, clocks and page tables.
    private static func isEngines(_ instruction: Instruction) -> Bool {
        switch instruction.mnemonic {
        case .in, .out, .ins, .outs, .hlt, .cpuid, .rdpmc, .monitor, .mwait, .lmsw: true
        // Control registers.
        case .mov: instruction.kind(0) == .register && instruction.register(0).rawValue &>> 4 == 6
            || instruction.kind(1) == .register && instruction.register(1).rawValue &>> 4 == 6
        default: false
        }
    }

    /// Whether an instruction is executed; otherwise it is #UD, or refused.
    func acceptForRescue(_ instruction: Instruction) -> Bool {
        guard let rescue = vcpu.rescue else { return false }
        let row = instruction.row
        if row.isAlwaysUndefined || row.map.isVEX && isReal || !rescue.features.contains(row.feature) { return false }
        guard loadForRescue(instruction, rescue) else { return false }
        if row.map.isVEX, row.unit != .integer {
            // Source: [SDM1 §14.3] detection of AVX: without the system's consent it is #UD.
            guard rescue.features.contains(.avx), s.cr4 & CR4.osxsave != 0, rescue.xcr0 & 6 == 6 else { return false }
        }
        if Self.canRescue(row), !Self.isEngines(instruction), !row.map.isVEX || row.unit == .integer { return true }
        refuse("it does not execute \(Disassembler.text(instruction, at: s.rip))")
        return false
    }

    /// Bytes that the tables do not hold: #UD, unless the guest has instructions that only the tables lack.
    func refuseUnknown(_ bytes: UInt, _ count: Int) {
        guard let features = vcpu.rescue?.features else { return }
        var at = 0
        func byte(_ offset: Int) -> UInt8 {
            at &+ offset < count ? Host.load(UInt8.self, bytes &+ UInt(bitPattern: at &+ offset)) : 0
        }
        prefixes: while at < count {
            switch byte(0) {
            case 0x26, 0x2E, 0x36, 0x3E, 0x64...0x67, 0xF0, 0xF2, 0xF3: at &+= 1
            case 0x40...0x4F where is64: at &+= 1
            default: break prefixes
            }
        }
        let isKnown: Bool
        switch (byte(0), byte(1)) {
        case (0x62, _): isKnown = !features.hasEVEX
        case (0xC4, _), (0xC5, _): isKnown = !features.hasMaskOrTile
        case (0x8F, _): isKnown = !features.hasXOP
        case (0x0F, 0x0F): isKnown = !features.has3DNow
        default: isKnown = !features.hasOther
        }
        if !isKnown { refuse("it does not know the instruction") }
    }
}
