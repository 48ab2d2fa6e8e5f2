internal import CKVM

/// One answer of the CPUID instruction: for a leaf, and for leaves that have them, a sub-leaf.
public struct CPUIDEntry: Hashable, Sendable, BitwiseCopyable {
    public var leaf: UInt32
    public var subleaf: UInt32
    /// Whether the sub-leaf (ECX) matters for this leaf.
    public var hasSubleaves: Bool
    public var eax: UInt32
    public var ebx: UInt32
    public var ecx: UInt32
    public var edx: UInt32

    public init(
        leaf: UInt32, subleaf: UInt32 = 0, hasSubleaves: Bool = false,
        eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0
    ) {
        self.leaf = leaf
        self.subleaf = subleaf
        self.hasSubleaves = hasSubleaves
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }

    init(_ entry: kvm_cpuid_entry2) {
        self.init(
            leaf: entry.function, subleaf: entry.index,
            hasSubleaves: entry.flags & UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
            eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
    }

    var kernelEntry: kvm_cpuid_entry2 {
        var entry = kvm_cpuid_entry2()
        entry.function = leaf
        entry.index = subleaf
        entry.flags = hasSubleaves ? UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX) : 0
        entry.eax = eax
        entry.ebx = ebx
        entry.ecx = ecx
        entry.edx = edx
        return entry
    }
}
