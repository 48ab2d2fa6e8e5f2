import VMCore

internal import X86

/// What CPUID tells: exactly what this processor does.
///
/// It calls itself an Intel core, because kernels believe only those about their clock's frequency (leaf 15H), and one of the
/// last generation before AVX, because C libraries choose their copying by the model: on later ones without AVX, by shuffles
/// of vectors instead of by the string instructions, which are what is fast here. And it says it is
/// a hypervisor of KVM's kind with next to no features, because kernels then use the x2APIC without interrupt remapping.
/// Source: [SDM2 CPUID], [KVM-CPUID].
extension CPU {
    /// Whether an instruction of this feature executes; the rest raise #UD.
    static func has(_ feature: Feature) -> Bool {
        switch feature {
        case .base, .x87, .cmov, .fcmov, .cx8, .cx16, .sep, .syscall, .lahf, .mmx, .fxsr, .sse, .sse2, .sse3, .ssse3, .sse41,
            .sse42, .popcnt, .lzcnt, .movbe, .bmi1, .bmi2, .adx, .rdrand, .rdseed, .clflush, .prefetchw, .fsgsbase, .rdtscp,
            .rdpid:
            true
        default: false
        }
    }

    /// Family 6, model 2CH, stepping 2.
    static var signature: UInt32 { 0x0002_06C2 }

    func executeCPUID() {
        let leaf = cpuid(UInt32(truncatingIfNeeded: self[0]), UInt32(truncatingIfNeeded: self[1]))
        self[0] = UInt64(leaf.0)
        self[3] = UInt64(leaf.1)
        self[1] = UInt64(leaf.2)
        self[2] = UInt64(leaf.3)
    }

    private func cpuid(_ leaf: UInt32, _ subleaf: UInt32) -> (UInt32, UInt32, UInt32, UInt32) {
        let vcpu = self.vcpu
        let hasAPIC = vcpu.local != nil
        let id = UInt32(truncatingIfNeeded: vcpu.index)
        let count = UInt32(truncatingIfNeeded: vcpu.engine.vcpuCount)
        func bits(_ list: [UInt32]) -> UInt32 { list.reduce(0) { $0 | 1 &<< $1 } }
        switch leaf {
        case 0: return (0x1F, 0x756E_6547, 0x6C65_746E, 0x4965_6E69)  // GenuineIntel
        case 1:
            var ecx = bits([0, 9, 13, 19, 20, 22, 23, 30, 31])
            var edx = bits([0, 2, 3, 4, 5, 6, 8, 11, 12, 13, 15, 16, 17, 19, 23, 24, 25, 26])
            if hasAPIC {
                ecx |= bits([21, 24])
                edx |= bits([9])
            }
            if count > 1 { edx |= bits([28]) }
            return (CPU.signature, 8 &<< 8 | min(count, 255) &<< 16 | (id & 0xFF) &<< 24, ecx, edx)
        case 2: return (0x00FE_FF01, 0, 0, 0)
        case 4: return Self.cache(subleaf, sharedBy: count)
        case 6: return (bits([2]), 0, 0, 0)
        case 7 where subleaf == 0:
            // Where TSC_ADJUST (1) is, Linux does without its watchdog over the counter, which a host with other work misleads: what
            // measures it, lost ticks, then calls the counter unstable, and each look at the clock is a port's.
            return (0, bits([0, 1, 3, 7, 8, 9, 18, 19]), bits([2, 22]), bits([4, 26, 29]))
        case 0xB, 0x1F:
            let coreBits = UInt32(truncatingIfNeeded: 32 &- (count &- 1).leadingZeroBitCount)
            switch subleaf {
            case 0: return (0, 1, 0x100, id)
            case 1: return (coreBits, count, 0x201, id)
            default: return (0, 0, subleaf & 0xFF, id)
            }
        case 0x15:
            let ratio = CrystalRatio(kilohertz: vcpu.engine.time.kilohertz)
            return (ratio.denominator, ratio.numerator, CrystalRatio.crystal, 0)
        case 0x16:
            let megahertz = vcpu.engine.time.kilohertz / 1000
            return (megahertz, megahertz, 1000, 0)
        case 0x4000_0000: return (0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D)  // KVMKVMKVM
        case 0x4000_0001: return (bits([1]), 0, 0, 0)  // no I/O delay is needed
        case 0x8000_0000: return (0x8000_0008, 0, 0, 0)
        case 0x8000_0001: return (0, 0, bits([0, 5, 8]), bits([11, 20, 26, 27, 29]))
        case 0x8000_0002...0x8000_0004: return Self.brand(Int(leaf & 7) &- 2)
        case 0x8000_0006: return (0, 0, 0x0400_8040, 0)
        case 0x8000_0007: return (0, 0, 0, bits([8]))
        case 0x8000_0008: return (40 | 48 &<< 8, 0, 0, 0)
        default: return (0, 0, 0, 0)
        }
    }

    /// Caches that there are none of, of the usual sizes: from them C libraries tell how large a copy may be before it goes past
    /// the caches, and from there on they avoid the string instructions, which are what is fast here.
    private static func cache(_ index: UInt32, sharedBy count: UInt32) -> (UInt32, UInt32, UInt32, UInt32) {
        /// Type (1 data, 2 code, 3 both), level, ways, sets of 64 bytes.
        func leaf(_ type: UInt32, _ level: UInt32, _ ways: UInt32, _ sets: UInt32) -> (UInt32, UInt32, UInt32, UInt32) {
            let sharing = level == 3 ? (count &- 1) &<< 14 : 0
            return (type | level &<< 5 | 0x100 | sharing, (ways &- 1) &<< 22 | 63, sets &- 1, 0)
        }
        switch index {
        case 0: return leaf(1, 1, 8, 64)
        case 1: return leaf(2, 1, 8, 64)
        case 2: return leaf(3, 2, 16, 1024)
        case 3: return leaf(3, 3, 16, 32768)
        default: return (0, 0, 0, 0)
        }
    }

    private static func brand(_ part: Int) -> (UInt32, UInt32, UInt32, UInt32) {
        let name: StaticString = "Windhover software CPU"
        func word(_ index: Int) -> UInt32 {
            var word: UInt32 = 0
            for byte in 0..<4 {
                let at = part &* 16 &+ index &* 4 &+ byte
                if at < name.utf8CodeUnitCount { word |= UInt32(unsafe name.utf8Start[at]) &<< UInt32(byte &* 8) }
            }
            return word
        }
        return (word(0), word(1), word(2), word(3))
    }
}
