import VMCore

/// The Linux boot parameters, one page that a kernel finds through RSI: the "zero page".
/// Source: [LINUX-ZEROPAGE]; [LINUX-BOOT] 64-bit boot protocol.
struct BootParameters {
    var header: SetupHeader
    var memoryMap: E820Map
    /// First byte and bytes; count 0 for none.
    var initrd: (address: UInt64, count: UInt64) = (0, 0)
    var rsdp: GuestAddress?

    /// Entries the page has room for. Source: [LINUX-ZEROPAGE] e820_table.
    static let memoryMapLimit = 128

    init(header: SetupHeader, memoryMap: E820Map) {
        self.header = header
        self.memoryMap = memoryMap
    }

    /// The page's 4096 bytes.
    ///
    /// Zeros, but for what is set here; not setting byte 0x1EF is what tells the kernel that the rest is valid.
    func page() throws(BootError) -> [UInt8] {
        let entries = memoryMap.entries
        guard entries.count <= Self.memoryMapLimit else {
            throw .tooManyRanges(count: entries.count, limit: Self.memoryMapLimit)
        }
        var header = header
        header.set(UInt8(0xFF), at: 0x210)  // type_of_loader: one without an assigned number
        header.set(UInt16(0xFFFF), at: 0x1FA)  // vid_mode: normal
        header.set(UInt32(truncatingIfNeeded: initrd.address), at: 0x218)
        header.set(UInt32(truncatingIfNeeded: initrd.count), at: 0x21C)
        header.set(UInt32(truncatingIfNeeded: BootLayout.commandLine.rawValue), at: 0x228)
        header.set(UInt64(0), at: 0x250)  // setup_data: ours to fill, and empty

        var page = LittleEndianBytes(count: 4096)
        page.store(rsdp?.rawValue ?? 0, at: 0x070)
        page.store(UInt32(truncatingIfNeeded: initrd.address >> 32), at: 0x0C0)
        page.store(UInt32(truncatingIfNeeded: initrd.count >> 32), at: 0x0C4)
        page.store(UInt8(entries.count), at: 0x1E8)
        page.store(header.bytes, at: SetupHeader.start)
        for (index, entry) in entries.enumerated() {
            page.store(entry.base.rawValue, at: 0x2D0 + index * 20)
            page.store(entry.count, at: 0x2D0 + index * 20 + 8)
            page.store(entry.kind.rawValue, at: 0x2D0 + index * 20 + 16)
        }
        return page.bytes
    }
}
