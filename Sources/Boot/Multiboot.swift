import VMCore

/// What both Multiboot versions share: where an image says it lies, and how it is put there.
enum Multiboot {
    /// A header's address fields: an image that is no ELF file, or wants to be taken for none.
    struct Addresses: Hashable {
        var header: UInt32
        var load: UInt32
        /// 0: to the end of the file.
        var loadEnd: UInt32
        /// 0: no memory beyond what is loaded.
        var bssEnd: UInt32
    }

    /// Finds a header: `magic` on a multiple of `alignment` with a checksum that makes `words` words sum to zero.
    /// - Returns: its offset in the file.
    static func find(_ magic: UInt32, alignment: UInt64, words: UInt64, limit: UInt64, in image: ImageBytes) -> UInt64?
    {
        var offset: UInt64 = 0
        while offset < limit, let first = image.integer(UInt32.self, at: offset) {
            if first == magic {
                var sum = first
                for word in 1..<words { sum &+= image.integer(UInt32.self, at: offset + word * 4) ?? 1 }
                if sum == 0, offset + words * 4 <= limit { return offset }
            }
            offset += alignment
        }
        return nil
    }

    /// Loads an image by its header's addresses.
    ///
    /// - Parameter headerOffset: where in the file the header is.
    /// - Throws: `malformed` for addresses in the wrong order, `truncated`, or what placing it throws.
    static func load(
        _ image: ImageBytes, by addresses: Addresses, headerOffset: UInt64, plan: inout MemoryPlan
    ) throws(BootError) {
        let (before, wrong) = addresses.header.subtractingReportingOverflow(addresses.load)
        guard !wrong, UInt64(before) <= headerOffset else {
            throw .malformed(image: image.name, problem: "its Multiboot header lies before what it asks to load")
        }
        let fileOffset = headerOffset - UInt64(before)
        let count: UInt64
        if addresses.loadEnd == 0 {
            count = image.count - fileOffset
        } else {
            guard addresses.loadEnd >= addresses.load else {
                throw .malformed(image: image.name, problem: "its Multiboot load addresses end before they begin")
            }
            count = UInt64(addresses.loadEnd - addresses.load)
        }
        let end = UInt64(addresses.load) + count
        guard addresses.bssEnd == 0 || UInt64(addresses.bssEnd) >= end else {
            throw .malformed(image: image.name, problem: "its Multiboot bss ends before the image does")
        }
        let part = try image.part(at: fileOffset, count: count)
        let address = GuestAddress(UInt64(addresses.load))
        let total = max(end, UInt64(addresses.bssEnd)) - address.rawValue
        guard total > 0 else { throw .malformed(image: image.name, problem: "it has nothing to load") }
        try plan.claim(image.name, at: address, count: total)
        try part.copy(into: plan.memory, at: address)
    }

    /// Loads the kernel by its addresses, or as the ELF file it is.
    /// - Parameter entry: the header's entry address, which then goes before the ELF file's.
    /// - Returns: the physical entry address.
    static func load(
        _ image: ImageBytes, addresses: Addresses?, entry: UInt32?, headerOffset: UInt64, plan: inout MemoryPlan
    ) throws(BootError) -> UInt32 {
        try plan.claimTables()
        if let addresses {
            try load(image, by: addresses, headerOffset: headerOffset, plan: &plan)
            guard let entry else {
                throw .malformed(
                    image: image.name, problem: "its Multiboot header has load addresses and no entry address")
            }
            guard plan.claims.last.map({ $0.first <= UInt64(entry) && UInt64(entry) <= $0.last }) == true else {
                throw .malformed(
                    image: image.name, problem: "its entry \(GuestAddress(UInt64(entry))) is not in what it loads")
            }
            return entry
        }
        guard ELF.isELF(image) else {
            // Xen's EFI program holds the header of the ELF file that it was made from.
            try ImageKind.refuseEFI(image)
            throw .malformed(
                image: image.name, problem: "its Multiboot header gives no addresses, and it is no ELF file")
        }
        let elf = try ELF(image)
        try elf.load(into: &plan)
        if let entry {
            guard elf.holds(physical: UInt64(entry)) else {
                throw .malformed(
                    image: image.name, problem: "its entry \(GuestAddress(UInt64(entry))) is in none of its segments")
            }
            return entry
        }
        guard let address = UInt32(exactly: try elf.physicalEntry()) else {
            throw .malformed(image: image.name, problem: "its entry lies above 4 GiB, where 32-bit code cannot start")
        }
        return address
    }

    /// The last part of a path: the guest is not told where on the host its modules were.
    static func baseName(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

    /// Claims and writes the boot information.
    static func place(_ information: [UInt8], plan: inout MemoryPlan) throws(BootError) {
        guard information.count <= BootLayout.informationLimit else {
            throw .noRoom(
                what: "the Multiboot information", count: UInt64(information.count),
                below: BootLayout.information.rawValue + BootLayout.informationLimit, memory: plan.memory.size)
        }
        try plan.claim("the Multiboot information", at: BootLayout.information, count: UInt64(information.count))
        let memory = plan.memory
        try placing { () throws(GuestMemoryError) in try memory.write(information, at: BootLayout.information) }
        try InitialTables.place(in: memory, long: false)
        try BIOSData.place(in: memory)
    }

    static func entryPoint(_ entry: UInt32, magic: UInt32, method: String) -> EntryPoint {
        let information = UInt32(truncatingIfNeeded: BootLayout.information.rawValue)
        return EntryPoint(.protected32(eip: entry, eax: magic, ebx: information, esi: 0), method: method)
    }
}
