import VMCore

/// Initial RAM disks, or modules in Multiboot's words.
enum Initrd {
    struct Placed {
        var address: GuestAddress
        /// Bytes, without the padding between files.
        var count: UInt64
        var name: String
    }

    /// Places the files one behind the other, each on a page of its own, as high as allowed.
    ///
    /// The zeros that pad a file to its page are what the kernel skips between concatenated archives.
    /// - Parameters:
    ///   - limit: the highest address that may hold a byte.
    ///   - mayUseHighMemory: whether RAM from 4 GiB up is a second choice.
    static func place(
        _ files: [ImageBytes], limit: UInt64, mayUseHighMemory: Bool = false, in plan: inout MemoryPlan
    ) throws(BootError) -> [Placed] {
        let page = GuestMemory.pageSize
        var total: UInt64 = 0
        for file in files {
            guard file.count > 0 else { throw .emptyFile(path: file.name) }
            let (padded, overflow) = file.count.addingReportingOverflow(page - 1)
            let (sum, overflow2) = total.addingReportingOverflow(padded & ~(page - 1))
            guard !overflow, !overflow2 else {
                throw .noRoom(what: label(files), count: .max, below: limit, memory: plan.memory.size)
            }
            total = sum
        }
        guard total > 0 else { return [] }
        let low = plan.highestFree(
            count: total, alignment: page, upTo: min(limit, GuestMemory.holeStart.rawValue - 1))
        let high = mayUseHighMemory ? plan.highestFree(count: total, alignment: page, upTo: .max) : nil
        guard let start = low ?? high else {
            throw .noRoom(what: label(files), count: total, below: limit, memory: plan.memory.size)
        }
        try plan.claim("the initrd", at: start, count: total)
        var placed: [Placed] = []
        var address = start
        for file in files {
            try file.place(in: plan.memory, at: address)
            placed.append(Placed(address: address, count: file.count, name: file.name))
            address = GuestAddress((address.rawValue + file.count + page - 1) & ~(page - 1))
        }
        return placed
    }

    private static func label(_ files: [ImageBytes]) -> String {
        files.count == 1 ? "the initrd \(files[0].name)" : "the initrds \(files.map(\.name).joined(separator: ", "))"
    }

    /// The one range that concatenated files make: from the first's address to the last's end.
    static func whole(_ placed: [Placed]) -> (address: UInt64, count: UInt64) {
        guard let first = placed.first, let last = placed.last else { return (0, 0) }
        return (first.address.rawValue, last.address.rawValue + last.count - first.address.rawValue)
    }
}
