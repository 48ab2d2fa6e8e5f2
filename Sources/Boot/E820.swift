public import VMCore

/// One range of the memory map that a PC's firmware reports.
/// Source: [ACPI6.5 §15] system address map interfaces.
public struct E820Entry: Hashable, Sendable {
    public enum Kind: UInt32, Hashable, Sendable {
        case ram = 1
        case reserved = 2
        /// Tables that the operating system may reuse once read.
        case acpi = 3
        case acpiNonVolatile = 4
    }

    public var base: GuestAddress
    /// Bytes; never zero.
    public var count: UInt64
    public var kind: Kind

    public init(base: GuestAddress, count: UInt64, kind: Kind) {
        self.base = base
        self.count = count
        self.kind = kind
    }
}

/// The memory map handed to a kernel: ascending, without overlaps.
public struct E820Map: Hashable, Sendable {
    public private(set) var entries: [E820Entry] = []

    /// The map of a PC with this memory.
    ///
    /// RAM but for what a PC keeps between 639 KiB and 1 MiB: the EBDA and the BIOS area, where the ACPI tables lie,
    /// are reserved; what lies between (video memory, option ROMs) is nothing.
    /// - Parameter reserved: further ranges, inside RAM or outside. They win over RAM; they may not overlap each other.
    /// - Throws: `badRange` for an empty, wrapping or overlapping range.
    public init(memory: GuestMemory, reserved: [E820Entry] = []) throws(BootError) {
        let ebda = BootLayout.extendedBIOSData.rawValue
        let high = BootLayout.highMemory.rawValue
        var fixed = [
            E820Entry(base: BootLayout.extendedBIOSData, count: BootLayout.video.rawValue - ebda, kind: .reserved),
            E820Entry(base: BootLayout.acpi, count: high - BootLayout.acpi.rawValue, kind: .reserved),
        ]
        fixed += reserved
        fixed.sort { $0.base < $1.base }
        // One past the end of the last one.
        var end: UInt64 = 0
        for entry in fixed {
            let (next, overflow) = entry.base.rawValue.addingReportingOverflow(entry.count)
            guard entry.count > 0, !overflow, entry.base.rawValue >= end else {
                throw .badRange(name: "a reserved range of the memory map", address: entry.base, count: entry.count)
            }
            end = next
        }
        let holes = fixed.map { ($0.base.rawValue, $0.base.rawValue + $0.count) } + [(BootLayout.video.rawValue, high)]
        var all = fixed
        for region in memory.regions {
            var start = region.base.rawValue
            let stop = start + region.count
            for (first, next) in holes.sorted(by: { $0 < $1 }) where next > start && first < stop {
                if first > start { all.append(.init(base: GuestAddress(start), count: first - start, kind: .ram)) }
                start = max(start, next)
            }
            if start < stop { all.append(.init(base: GuestAddress(start), count: stop - start, kind: .ram)) }
        }
        entries = all.sorted { $0.base < $1.base }
    }

    /// KiB of RAM from 1 MiB up to the first hole, as old interfaces count it.
    var extendedKibibytes: UInt64 {
        entries.first { $0.base == BootLayout.highMemory && $0.kind == .ram }.map { $0.count / 1024 } ?? 0
    }
}
