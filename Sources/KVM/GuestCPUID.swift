import VMCore

/// What CPUID tells one vCPU: the host's supported leaves, with the topology of this guest and the clock
/// frequencies filled in, so that no guest has to calibrate anything.
///
/// The topology is one package of `count` single-threaded cores; a vCPU's APIC id is its index.
/// Source: [SDM2 CPUID], [APM3 §E], [KVM-CPUID].
public struct GuestCPUID: Sendable {
    /// vCPUs in the guest; at least 1.
    public var count: Int
    /// The guest's TSC frequency in kHz, where the host knows it.
    public var tscKilohertz: UInt32?
    /// Whether the local APIC's timer has the TSC-deadline mode.
    public var hasTSCDeadline: Bool

    public init(count: Int, tscKilohertz: UInt32?, hasTSCDeadline: Bool) {
        self.count = max(1, count)
        self.tscKilohertz = tscKilohertz
        self.hasTSCDeadline = hasTSCDeadline
    }

    /// Bits needed to tell `count` cores apart in an APIC id.
    var coreBits: UInt32 {
        var bits: UInt32 = 0
        while bits < 31, UInt32(1) << bits < UInt32(clamping: count) { bits += 1 }
        return bits
    }

    /// The leaves for vCPU `index`.
    public func entries(supported: [CPUIDEntry], index: Int) -> [CPUIDEntry] {
        let id = UInt32(truncatingIfNeeded: index)
        let isAMD = supported.contains { $0.leaf == 0 && $0.ebx == 0x6874_7541 }
            || supported.contains { $0.leaf == 0 && $0.ebx == 0x6F67_7948 }
        let cores = UInt32(clamping: count)
        var result: [CPUIDEntry] = []
        result.reserveCapacity(supported.count + 6)
        var hypervisorLeaves = false
        for var entry in supported {
            switch entry.leaf {
            case 0x1:
                // EBX: initial APIC id in 31-24, logical processors in 23-16, CLFLUSH size as the host has it.
                entry.ebx = entry.ebx & 0xFFFF | min(cores, 255) << 16 | (id & 0xFF) << 24
                entry.ecx |= 1 << 31  // a hypervisor is present
                entry.ecx = set(entry.ecx, bit: 24, hasTSCDeadline)
                entry.edx = set(entry.edx, bit: 28, count > 1)  // HTT: EBX 23-16 is valid
            case 0x4:
                // Cores in the package, and logical processors that share this cache: the first two levels
                // are a core's own, the third is the package's.
                guard entry.eax & 0x1F != 0 else { break }
                let level = entry.eax >> 5 & 7
                let sharing = level >= 3 ? (UInt32(1) << coreBits) - 1 : 0
                let ids = min((UInt32(1) << coreBits) - 1, 63)
                entry.eax = entry.eax & 0x3FFF | min(sharing, 4095) << 14 | ids << 26
            case 0x6:
                entry.eax |= 1 << 2  // ARAT: the local timer runs in every power state
            case 0xA:
                // No performance monitoring: what KVM virtualises differs by host.
                entry.eax = 0
                entry.ebx = 0
                entry.ecx = 0
                entry.edx = 0
            case 0xB, 0x1F, 0x15, 0x16:
                continue  // made below
            case 0x4000_0000:
                hypervisorLeaves = true
                entry.eax = max(entry.eax, 0x4000_0010)
            case 0x4000_0010:
                continue
            case 0x8000_0001 where isAMD:
                // CmpLegacy: leaf 1 counts cores, not threads.
                entry.ecx = set(entry.ecx, bit: 1, count > 1)
            case 0x8000_0008:
                if isAMD {
                    entry.ecx = entry.ecx & ~0xF0FF | coreBits << 12 | min(cores - 1, 255)
                }
            case 0x8000_001D where entry.eax & 0x1F != 0:
                let level = entry.eax >> 5 & 7
                let sharing = level >= 3 ? cores - 1 : 0
                entry.eax = entry.eax & 0x3FFF | min(sharing, 4095) << 14
            case 0x8000_001E:
                entry.eax = id
                entry.ebx = id & 0xFF  // one thread a core
                entry.ecx = 0
            default:
                break
            }
            result.append(entry)
        }
        let highest = supported.first { $0.leaf == 0 }?.eax ?? 0
        if highest >= 0xB {
            let leaves: [UInt32] = highest >= 0x1F ? [0xB, 0x1F] : [0xB]
            for leaf in leaves {
                // Sub-leaf 0: threads, none of them siblings. 1: cores. 2: the end of the list.
                result.append(
                    CPUIDEntry(leaf: leaf, subleaf: 0, hasSubleaves: true, eax: 0, ebx: 1, ecx: 0x100, edx: id))
                result.append(
                    CPUIDEntry(
                        leaf: leaf, subleaf: 1, hasSubleaves: true, eax: coreBits, ebx: min(cores, 0xFFFF), ecx: 0x201,
                        edx: id))
                result.append(CPUIDEntry(leaf: leaf, subleaf: 2, hasSubleaves: true, ecx: 2, edx: id))
            }
        }
        if let tscKilohertz, tscKilohertz > 0 {
            let ratio = CrystalRatio(kilohertz: tscKilohertz)
            if !isAMD, highest >= 0x15, ratio.numerator != 0 {
                // KVM runs the local APIC's timer at 1 GHz, too.
                result.append(CPUIDEntry(leaf: 0x15, eax: ratio.denominator, ebx: ratio.numerator, ecx: CrystalRatio.crystal))
            }
            if hypervisorLeaves {
                // [KVM-CPUID] follows VMware's timing leaf: TSC and APIC bus frequency in kHz.
                result.append(CPUIDEntry(leaf: 0x4000_0010, eax: tscKilohertz, ebx: 1_000_000))
            }
        }
        return result
    }

    private func set(_ word: UInt32, bit: UInt32, _ value: Bool) -> UInt32 {
        value ? word | 1 << bit : word & ~(1 << bit)
    }
}
